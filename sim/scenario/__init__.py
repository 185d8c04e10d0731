"""Scenarios: what to train, on which machine, within which limits; read strictly from YAML."""
