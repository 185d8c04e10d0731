"""A plan handed over: what other frameworks and launchers are told, and what they cannot be told."""
