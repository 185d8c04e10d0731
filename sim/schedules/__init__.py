"""Orders of F, I and W for a pipeline: each schedule a small function that returns plan programs."""
