"""What surrounds every verb: exit codes instead of tracebacks, cheap start, streams kept apart."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from exactmap import errors
from exactmap.sim.cli import console
from exactmap.sim.cli.main import app

RUNNER = CliRunner()
HEAVY = {"numpy", "matplotlib", "networkx", "simpy", "yaml", "asyncio"}


def _ended(error: BaseException) -> int:
    import typer

    @console.verb
    def broken() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        broken()
    return int(caught.value.exit_code)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.InvalidInputError, 3),
        (errors.InfeasibleError, 4),
        (errors.CheckFailedError, 5),
        (errors.ExecutionFailedError, 6),
        (errors.ExecutionHungError, 7),
        (errors.MissingRequirementError, 8),
    ],
)
def test_families_have_their_codes(
    kind: type[errors.ExactmapError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _ended(kind("it is so", hint="do that")) == code
    assert capsys.readouterr().err == "error: it is so\nhint: do that\n"


def test_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    assert _ended(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_file_system_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert _ended(PermissionError(13, "Permission denied", "a/b")) == 6
    assert capsys.readouterr().err == "error: a/b: Permission denied\n"


def test_a_bug_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A message and code 1; the traceback only on request."""
    assert _ended(ZeroDivisionError("division by zero")) == 1
    text = capsys.readouterr().err

    assert "error: a bug in exactmap: ZeroDivisionError: division by zero" in text
    assert "Traceback" not in text
    monkeypatch.setenv("EXACTMAP_TRACEBACK", "1")
    _ended(ZeroDivisionError("division by zero"))

    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["plan", "--help"], ["run", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """The budget of 400 ms is kept by what is not imported, which can be tested on a busy machine too."""
    script = (
        "import sys\n"
        f"sys.argv = ['exactmap', *{arguments!r}]\n"
        "from exactmap.sim.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('\\n' + ' '.join(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(done.stdout.splitlines()[-1].split())

    # Newer versions of typer describe a verb's options with pydantic.
    heavy = HEAVY if len(arguments) > 1 else HEAVY | {"pydantic"}

    assert not heavy & modules
    assert {"typer", "exactmap.sim.cli.main"} <= modules


def test_ctrl_c(tmp_path: Path) -> None:
    """A verb that is interrupted while it waits for its input ends with 130 and one line."""
    pipe = tmp_path / "scenario.yaml"
    os.mkfifo(pipe)
    # A shell that runs the tests in the background has its children ignore SIGINT: undo that first.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from exactmap.sim.cli.main import main; main()"
    )
    words = [sys.executable, "-c", program, "check", str(pipe)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        writer = -1
        while writer < 0 and time.monotonic() < deadline:
            try:
                writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads yet
                time.sleep(0.02)
        # Python hears a signal that comes just before a system call only after that call: a second one, as of
        # a user who presses again, ends it.
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        process.kill()
        out, err = process.communicate()
        os.close(writer)

    assert (process.returncode, out, err) == (130, "", "interrupted\n")


def _flat(document: object) -> set[str]:
    if isinstance(document, dict):
        return set(document) | {key for value in document.values() for key in _flat(value)}
    if isinstance(document, list):
        return {key for value in document for key in _flat(value)}
    return set()


def test_stdout_is_one_document(tmp_path: Path) -> None:
    """`--json` prints one document with `schema_version` first, and nothing else."""
    scenario = Path(__file__).parents[2] / "scenarios" / "cpu-quick.yaml"
    plan, folder = tmp_path / "q.plan", tmp_path / "predicted"
    calls: list[list[str]] = [
        ["plan", str(scenario), "-o", str(plan)],
        ["simulate", str(plan), "-o", str(folder), "--no-pictures"],
        ["check", str(plan)],
        ["check", str(scenario), "--print-config"],
        ["show", str(plan)],
        ["show", str(folder)],
        ["show", str(folder / "trace.tsv")],
        ["compare", str(folder), str(folder), "-o", str(tmp_path / "compared")],
        ["doctor"],
    ]
    kinds: list[str] = []
    for call in calls:
        done = RUNNER.invoke(app, [*call, "--json"])
        document: dict[str, Any] = json.loads(done.stdout)

        assert done.exit_code == 0, call
        assert done.stderr == ""
        assert next(iter(document)) == "schema_version"
        kinds.append(document["kind"])

    assert kinds == [
        "plan",
        "prediction",
        "check",
        "check",
        "show-plan",
        "prediction",
        "show-trace",
        "comparison",
        "doctor",
    ]


@pytest.mark.parametrize("verb", ["plan", "simulate", "run", "compare", "calibrate", "check", "show", "data"])
def test_every_verb_has_json(verb: str) -> None:
    done = RUNNER.invoke(app, [verb, "--help"], env={"COLUMNS": "120"})

    assert done.exit_code == 0
    assert "--json" in done.stdout
