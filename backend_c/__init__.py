"""The hands: the C engine and its small Python door."""
