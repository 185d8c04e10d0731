"""Import of a model's shape from a Hugging Face ``config.json``, one file for each group of families."""

from __future__ import annotations

from exactmap.sim.workload.huggingface.keys import ImportedModel
from exactmap.sim.workload.huggingface.read import read_huggingface_config

__all__ = ["ImportedModel", "read_huggingface_config"]
