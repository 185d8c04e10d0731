"""PyTorch's pipeline schedule files: read, checked, lowered as torch does, written."""
