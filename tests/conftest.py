"""What all tests share: golden files that can be refreshed, reproducible random search, one thread each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Before numpy or matplotlib are imported anywhere.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# The same examples every time, and no deadline: how busy a machine is says nothing about the code.
hypothesis.settings.register_profile("default-exactmap", derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=10_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default-exactmap"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--update``, which writes golden files anew instead of comparing with them."""
    parser.addoption("--update", action="store_true", help="write golden files anew; look at the diff")


@pytest.fixture
def compare_golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare text with a golden file, or write that file if ``--update`` is given."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--update"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        if not path.exists():
            pytest.fail(f"{path} is missing; hint: pytest --update, then read the file before committing it")

        assert path.read_text(encoding="utf-8") == text, (
            f"differs from {path}; hint: pytest --update if intended"
        )

    return compare
