"""Clusters and parts that come with exactmap, as data: YAML files, and measured curves.

A cluster (``NAME.yaml``) is put together from parts; ``parts/KIND.yaml`` holds the parts of one kind by name.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

__all__ = ["PART_KINDS", "catalog_names", "catalog_path", "parts_path"]

PART_KINDS: Final = ("gpus", "hosts", "racks", "scale-up", "interfaces", "switches", "cables")
"""Kinds of parts, each a file of its own."""


def catalog_names() -> tuple[str, ...]:
    """Names of the clusters in the catalog.

    Examples
    --------
    >>> "gb300-nvl72" in catalog_names()
    True
    """
    return tuple(
        sorted(
            entry.name.removesuffix(".yaml")
            for entry in files(__name__).iterdir()
            if entry.name.endswith(".yaml")
        )
    )


def catalog_path(name: str) -> Path:
    """File of a cluster in the catalog."""
    return Path(str(files(__name__).joinpath(f"{name}.yaml")))


def parts_path(kind: str) -> Path:
    """File of the parts of one kind."""
    return Path(str(files(__name__).joinpath("parts", f"{kind}.yaml")))
