"""The state of every component of a cluster: how fast each is, drawn from a stream of its own."""
