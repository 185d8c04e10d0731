"""Times of operators and collectives, and bytes of memory, from workload and topology."""
