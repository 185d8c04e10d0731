"""The command line as a user types it: a script, and what it must print to stdout and stderr and exit with.

Each folder is a story: `cmd` (bash, run in an empty folder), `stdout.golden`, `stderr.golden` (a missing one:
nothing may be printed) and `exit` (missing: 0). In golden files `*` stands for anything within a line.

The script may use `exactmap`, `$SCENARIOS`, `$PLANS` (the corpus of plans) and `$READY` (with `q.plan`, the
plan of the scenario cpu-quick, `predicted`, its prediction, and `predicted.out`, what was printed then). A
folder with a file `slow` is left out of quick runs. `--update` keeps lines that still match and writes the
others anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CASES = sorted(path.parent for path in HERE.glob("*/cmd"))
TIMEOUT_S = 240


def _parameters() -> list[object]:
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if (case / "slow").exists() else [])
        for case in CASES
    ]


def _environment(ready: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("HOME", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "READY": str(ready),
        "SCENARIOS": str(ROOT / "scenarios"),
        "PLANS": str(ROOT / "tests" / "golden" / "plans"),
        "COLUMNS": "100",
        "LC_ALL": "C.UTF-8",
        "MPLBACKEND": "Agg",
    }


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan and its prediction, made once for all stories."""
    folder = tmp_path_factory.mktemp("ready")
    script = (
        'exactmap plan "$SCENARIOS/cpu-quick.yaml" -o q.plan > plan.out && '
        "exactmap simulate q.plan -o predicted > predicted.out"
    )
    subprocess.run(
        ["bash", "-c", script], cwd=folder, env=_environment(folder), timeout=TIMEOUT_S, check=True
    )
    return folder


def _lines(data: bytes) -> list[str]:
    return [line.rstrip() for line in data.decode("utf-8", errors="backslashreplace").splitlines()]


def _matches(wanted: str, found: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, wanted.split("*"))), found) is not None


def _compare(golden: Path, found: list[str], *, update: bool) -> None:
    wanted = golden.read_text(encoding="utf-8").splitlines() if golden.exists() else []
    same = len(wanted) == len(found) and all(map(_matches, wanted, found))
    if same or not update:
        # Shown as two lists, so that pytest's diff names the lines.
        assert same or wanted == found, f"differs from {golden}; hint: pytest --update if intended"
        return
    kept = [*wanted, *([""] * len(found))]
    lines = [old if _matches(old, line) else line for old, line in zip(kept, found, strict=False)]
    if lines:
        golden.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        golden.unlink(missing_ok=True)


def test_there_are_stories() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("case", _parameters())
def test_story(case: Path, ready: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    done = subprocess.run(
        ["bash", str(case / "cmd")],
        cwd=tmp_path,
        env=_environment(ready),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    update = bool(request.config.getoption("--update"))
    code = case / "exit"
    if update:
        code.write_text(f"{done.returncode}\n", encoding="ascii") if done.returncode else code.unlink(
            missing_ok=True
        )
    _compare(case / "stderr.golden", _lines(done.stderr), update=update)
    _compare(case / "stdout.golden", _lines(done.stdout), update=update)

    assert done.returncode == (int(code.read_text(encoding="ascii")) if code.exists() else 0)
    assert b"Traceback" not in done.stderr
