"""The machine: GPUs, racks, fabric, placement of mesh axes, and a catalog of real hardware."""
