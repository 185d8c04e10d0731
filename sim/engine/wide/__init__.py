"""Every GPU of a cluster in one step: the plan replayed in columns, one for each set of pipeline ranks."""
