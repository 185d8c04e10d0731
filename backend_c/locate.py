"""Where the C engine is: the shared library and the program that executes a plan.

Both are built by CMake and installed into ``exactmap/_native``; an editable install keeps them apart from
the sources, so they are found through `importlib.resources`, never beside ``__file__``. The environment may
name others: ``EXACTMAP_LIBRARY`` and ``EXACTMAP_RUNNER`` (a sanitizer build, a build of another compiler).
"""

from __future__ import annotations

import os
import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from exactmap.errors import ExactmapError, MissingRequirementError

__all__ = ["library_path", "run_engine", "runner_environment", "runner_path"]

_LIBRARY = "libexactmap.dylib" if sys.platform == "darwin" else "libexactmap.so"
_RUNNER = "exactmap-run"
_SEARCH_PATH = "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH"


def library_path() -> Path:
    """Return the path of the shared library ``libexactmap``.

    Raises
    ------
    MissingRequirementError
        If it was not built, or ``EXACTMAP_LIBRARY`` names no file.
    """
    return _locate(_LIBRARY, "EXACTMAP_LIBRARY", "the C library")


def runner_path() -> Path:
    """Return the path of the program ``exactmap-run``, which executes a plan file.

    Raises
    ------
    MissingRequirementError
        If it was not built, or ``EXACTMAP_RUNNER`` names no file that may be executed.
    """
    path = _locate(_RUNNER, "EXACTMAP_RUNNER", "the C engine")
    if not os.access(path, os.X_OK):
        raise MissingRequirementError(
            "the C engine may not be executed", where=str(path), hint=f"chmod +x {path}"
        )
    return path


def runner_environment() -> dict[str, str]:
    """Return the environment to start ``exactmap-run`` with: this process's own, and where OpenBLAS lies.

    The engine looks for OpenBLAS beside the package; this adds the folder for installs that lie apart (a user
    site, a virtual environment on top of another).
    """
    environment = dict(os.environ)
    spec = find_spec("scipy_openblas32")
    if spec is not None and spec.submodule_search_locations is not None:
        folders = [str(Path(folder) / "lib") for folder in spec.submodule_search_locations]
        known = environment.get(_SEARCH_PATH)
        environment[_SEARCH_PATH] = os.pathsep.join(folders if known is None else [known, *folders])
    return environment


def run_engine() -> None:
    """Become ``exactmap-run`` with this process's arguments (the console script of that name)."""
    try:
        runner = runner_path()
    except ExactmapError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
    arguments = [_RUNNER, *sys.argv[1:]]
    os.execve(runner, arguments, runner_environment())  # noqa: S606 - arguments pass as they are, no shell


def _locate(name: str, variable: str, what: str) -> Path:
    named = os.environ.get(variable)
    if named is not None:
        path = Path(named)
        if not path.is_file():
            raise MissingRequirementError(
                f"{what} is missing", where=variable, got=named, expected="a file", hint=f"unset {variable}"
            )
        return path
    with resources.as_file(resources.files("exactmap").joinpath("_native", name)) as path:
        if path.is_file():
            return path
    raise MissingRequirementError(
        f"{what} is missing",
        got=f"no file {path}",
        expected=f"{name}, which an install builds",
        hint=f"run `make build` (needs a C compiler), or name the file in {variable}",
    )
