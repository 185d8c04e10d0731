"""Clusters that come with exactmap, as data: one YAML file each, and measured curves."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["catalog_names", "catalog_path"]


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
