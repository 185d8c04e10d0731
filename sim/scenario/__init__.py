"""Scenarios: strict YAML with units, validated into typed values."""
