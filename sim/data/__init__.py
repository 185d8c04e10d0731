"""Token files: text becomes memory-mapped numbers, with a validation split that training never sees."""
