"""Engines that execute a plan's rules in simulated time and write one trace schema."""
