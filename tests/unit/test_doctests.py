"""Every example in a docstring runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import exactmap

MODULES = sorted(module.name for module in pkgutil.walk_packages(exactmap.__path__, "exactmap."))


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str) -> None:
    """Run the doctests of one module."""
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)

    assert result.failed == 0


def test_there_are_examples() -> None:
    """The search above looks where examples are."""
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(name) for name in MODULES]

    assert sum(bool(test.examples) for module in modules for test in finder.find(module)) > 0
