"""What a user installs: one package, its public face, the C engine beside it, archives that work."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import exactmap
from exactmap.backend_c.locate import library_path, runner_environment, runner_path
from exactmap.errors import ExactmapError, MissingRequirementError, Place

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command away from the source tree and return what it printed."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("EXACTMAP_", "PYTHON"))
    }
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout


def test_the_public_face_is_what_it_was() -> None:
    """A name that users import is added or taken away on purpose: change this list with it."""
    verbs = ["calibrate", "catalog", "check", "cluster", "collective", "compare", "data", "doctor"]
    verbs += [
        "explain",
        "export",
        "map",
        "plan",
        "predict",
        "run",
        "sample",
        "schedules",
        "show",
        "simulate",
        "simulate_whole",
        "sweep",
        "traffic",
    ]
    verbs += ["validate"]

    assert sorted(exactmap.__all__) == ["ExactmapError", "__version__", *verbs]
    assert all(callable(getattr(exactmap, name)) for name in verbs)


def test_code_folders_are_relative_links() -> None:
    """`import exactmap.sim` finds the folder `sim` of any clone, wherever it lies."""
    links = {
        path.name: str(path.readlink()) for path in (ROOT / "src/exactmap").iterdir() if path.is_symlink()
    }

    assert links == {room: f"../../{room}" for room in ("backend_c", "sim", "topology")}


def test_importing_the_package_brings_nothing_heavy_along() -> None:
    """`import exactmap` costs nothing that the caller did not ask for."""
    program = "import sys; import exactmap; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = set(run(sys.executable, "-c", program, cwd=ROOT, PYTHONPATH=str(ROOT / "src")).split())

    assert "exactmap" in loaded
    assert loaded.isdisjoint(
        {"matplotlib", "networkx", "numpy", "pydantic", "rich", "simpy", "typer", "yaml"}
    )


def test_exit_codes_of_the_error_families() -> None:
    """One family per documented exit code."""
    codes = {family.__name__: family.exit_code for family in ExactmapError.__subclasses__()}

    assert codes == {
        "InvalidInputError": 3,
        "InfeasibleError": 4,
        "CheckFailedError": 5,
        "ExecutionFailedError": 6,
        "ExecutionHungError": 7,
        "MissingRequirementError": 8,
    }


def test_an_error_says_what_where_got_expected_and_a_hint() -> None:
    """Several problems are reported at once, each with its place, the hint last."""
    first = ExactmapError("unknown key", where=Place("a.yaml", 3, "model.head"), hint="did you mean 'heads'?")
    second = ExactmapError("not a number", where=Place("a.yaml", 5), got="'x'", expected="an integer")
    whole = ExactmapError("2 problems", where="a.yaml", problems=[first, second], hint="see the schema")

    assert str(whole).splitlines() == [
        "a.yaml: 2 problems",
        "a.yaml:3: model.head: unknown key",
        "hint: did you mean 'heads'?",
        "a.yaml:5: not a number: got 'x', expected an integer",
        "hint: see the schema",
    ]


@pytest.mark.parametrize(
    ("variable", "locate"), [("EXACTMAP_LIBRARY", library_path), ("EXACTMAP_RUNNER", runner_path)]
)
def test_a_missing_engine_is_named_with_a_remedy(
    variable: str, locate: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A variable that names no file ends in exit code 8, not in a traceback of the loader."""
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))

    with pytest.raises(MissingRequirementError, match=f"{variable}: the C .* is missing: got .*nowhere"):
        locate()


def test_the_engine_is_found_and_runs(tmp_path: Path) -> None:
    """An install brings the engine; it says the package's version."""
    printed = subprocess.run(
        [runner_path(), "--version"],
        cwd=tmp_path,
        env=runner_environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert exactmap.__version__ in printed.stdout
    assert library_path().is_file()


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build the sdist from this tree and the wheel from that sdist, as a release does."""
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("archives")
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "-o", out, ROOT, cwd=out, PATH=tools)
    (sdist,) = out.glob("*.tar.gz")
    run("tar", "-xzf", sdist, cwd=out)
    unpacked = out / sdist.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", out, unpacked, cwd=out, PATH=tools)
    (wheel,) = out.glob("*.whl")
    return sdist, wheel


@pytest.mark.slow
def test_the_wheel_holds_one_package_without_sources_of_c(archives: tuple[Path, Path]) -> None:
    """Nothing but `exactmap/` lands in site-packages; every Python file of the rooms is there."""
    with zipfile.ZipFile(archives[1]) as wheel:
        names = set(wheel.namelist())
    rooms = ("backend_c", "sim", "topology")
    expected = {
        f"exactmap/{path.relative_to(ROOT)}"
        for room in rooms
        for path in (ROOT / room).rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and (room != "backend_c" or path.suffix == ".py")
    }

    assert {name.split("/")[0] for name in names} == {
        "exactmap",
        f"exactmap-{exactmap.__version__}.dist-info",
    }
    assert expected <= names
    assert not [name for name in names if name.endswith((".c", ".cmake", "CMakeLists.txt"))]
    assert {"exactmap/py.typed", "exactmap/_native/exactmap-run", "exactmap/_native/libexactmap.so"} <= names


@pytest.mark.slow
def test_the_sdist_holds_what_a_build_needs_and_no_more(archives: tuple[Path, Path]) -> None:
    """Sources, licence, tests and the links are in; environments and builds are not."""
    with tarfile.open(archives[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}

    assert {"LICENSE", "CMakeLists.txt", "Makefile", "sim/__init__.py", "tests/conftest.py"} <= names
    assert not [name for name in names if name.startswith((".venv", "build/", "dist/", "out/", ".git/"))]


@pytest.mark.slow
def test_a_wheel_built_from_the_sdist_works_in_a_clean_environment(
    archives: tuple[Path, Path], tmp_path: Path
) -> None:
    """Installed away from the sources: import, the command line, the engine."""
    home = tmp_path / "environment"
    venv.create(home, with_pip=True, symlinks=True)
    python, folder = home / "bin/python", home / "bin"
    site = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path).strip())
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", archives[1], cwd=tmp_path)
    # The packages that exactmap needs, as this environment has them: the test works without a network.
    import numpy as np
    import scipy_openblas32

    (site / "scipy_openblas32").symlink_to(Path(scipy_openblas32.__file__).parent)
    (site / "dependencies.pth").write_text(f"{Path(np.__file__).parents[1]}\n", encoding="utf-8")

    where = run(python, "-c", "import exactmap.sim; print(exactmap.sim.__file__)", cwd=tmp_path).strip()
    version = exactmap.__version__

    assert Path(where).is_relative_to(site)
    assert version in run(folder / "exactmap", "--version", cwd=tmp_path)
    assert version in run(folder / "exactmap-run", "--version", cwd=tmp_path)
    # The engine finds OpenBLAS by itself, beside the package.
    assert version in run(site / "exactmap/_native/exactmap-run", "--version", cwd=tmp_path)


def test_versions_of_requirements_are_floors() -> None:
    """A user's environment decides; only the peers, which golden files were made with, are pinned."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert [line for line in project["dependencies"] if ">=" not in line] == []
    assert project["dependencies"] == sorted(project["dependencies"])
