"""Flows that share links: fair rates, flows that come and go, where it is congested."""
