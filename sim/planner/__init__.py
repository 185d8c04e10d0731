"""Enumerate, prune, price, rank and explain candidate plans."""
