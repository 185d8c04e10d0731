"""The network between scale-up domains: what a user asks for, what is built of it, how packets cross it."""
