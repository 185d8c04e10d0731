"""Failures, stragglers, checkpoints and goodput over weeks."""
