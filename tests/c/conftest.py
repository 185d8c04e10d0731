"""Tests of the C engine share its library."""

from __future__ import annotations

import ctypes

import pytest
from numerics_library import load

from exactmap.backend_c.locate import library_path


@pytest.fixture(scope="session")
def numerics() -> ctypes.CDLL:
    """The C library with the types of `exactmap/numerics.h` stated."""
    return load(library_path())
