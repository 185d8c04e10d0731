"""Plans, folders and sizes that mean harm or ill luck: refused before memory is taken or a step is lost."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
from engine_case import Case, make_data

from exactmap.backend_c.locate import runner_path

pytestmark = pytest.mark.sanitize

_SIZED_LINE = re.compile(r"^(?:region|pool|chan) .*\bbytes=(\d+)")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("engine")).folder


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return Case().write(tmp_path / "a.plan")


def edit(path: Path, change: Callable[[str], str]) -> Path:
    """Change a plan's text and write it with a fitting hash."""
    text = path.read_text()
    changed = change(text)
    assert changed != text
    lines = changed.split("\n", 2)
    lines[1] = f"body sha256={sha256(lines[2].encode()).hexdigest()}"
    path.write_text("\n".join(lines))
    return path


def _with_line(number: int, line: str, text: str) -> str:
    lines = text.split("\n")
    return "\n".join([*lines[:number], line, *lines[number + 1 :]])


def call(*words: object, stdout: int | None = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [runner_path(), *map(str, words)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("change", [-64, 64], ids=["shorter", "longer"])
def test_no_size_of_a_plan_is_trusted(change: int, plan: Path) -> None:
    """Each region, slot and message, made 64 bytes shorter or longer, is refused by its line."""
    lines = plan.read_text().split("\n")
    sized = [number for number, line in enumerate(lines) if _SIZED_LINE.match(line)]

    assert len(sized) == 2 + 2 * 5 + 2 * 3  # channels; regions and pools of two ranks
    for number in sized:
        match = _SIZED_LINE.match(lines[number])
        assert match is not None
        line = lines[number][: match.start(1)] + str(int(match[1]) + change) + lines[number][match.end(1) :]
        changed = plan.with_name("changed.plan")
        changed.write_bytes(plan.read_bytes())
        edit(changed, partial(_with_line, number, line))
        done = call(changed, "--check")

        assert done.returncode == 3, line
        assert re.search(
            r"changed.plan:\d+: (engine\.bytes|head\.arena|pair\.bytes|prog\.slot)", done.stderr
        ), done.stderr


def test_arenas_beyond_the_machine_are_refused_before_they_are_taken(plan: Path, data: Path) -> None:
    """An arena of 2^50 bytes could be mapped and would end the process when touched."""
    edit(plan, lambda text: re.sub(r"^(arena pp=\d+ bytes=)\d+", rf"\g<1>{2**50}", text, flags=re.MULTILINE))
    done = call(plan, "--data", data, "--steps", 1)

    assert done.returncode == 4
    assert re.search(rf"arenas of all ranks take {2**51} bytes, this machine has \d+", done.stderr)


def test_any_number_of_steps_may_be_asked_for(data: Path, tmp_path: Path) -> None:
    """Memory does not grow with the steps: a run until it is interrupted starts at once."""
    plan = Case(layers=2, pp=1, m=1).write(tmp_path / "a.plan")
    checkpoint = tmp_path / "checkpoint"
    assert call(plan, "--data", data, "--steps", 3, "--out", checkpoint).returncode == 0
    state = checkpoint / "state.json"
    most = 2**62
    state.write_text(json.dumps({**json.loads(state.read_text()), "step": most - 2}))
    metrics = tmp_path / "metrics.jsonl"
    done = call(plan, "--data", data, "--steps", most, "--resume", checkpoint, "--metrics", metrics, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == most
    assert json.loads(done.stdout)["median_step_ns"] > 0

    endless = tmp_path / "endless.jsonl"
    with subprocess.Popen(
        [runner_path(), str(plan), "--data", str(data), "--steps", str(most), "--metrics", str(endless)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:
        for _ in range(600):
            if endless.exists() and endless.read_text().count('"record": "step"') > 0:
                break
            try:
                run.wait(0.05)
                break
            except subprocess.TimeoutExpired:
                continue
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 130


def test_files_that_are_not_of_a_checkpoint_are_never_removed(plan: Path, data: Path, tmp_path: Path) -> None:
    """A folder with anything else in it is refused before the first step, and nothing in it changes."""
    out = tmp_path / "results"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    metrics = tmp_path / "metrics.jsonl"
    done = call(plan, "--data", data, "--steps", 1, "--out", out, "--metrics", metrics)

    assert done.returncode == 6
    assert "holds thesis.txt" in done.stderr
    assert [file.name for file in out.iterdir()] == ["thesis.txt"]
    assert metrics.read_text() == ""
    assert not list(tmp_path.glob("*.tmp-*"))


def test_a_file_that_appears_beside_a_checkpoint_stays(plan: Path, data: Path, tmp_path: Path) -> None:
    """What another program puts into the folder during a run survives its replacement."""
    out = tmp_path / "checkpoint"
    out.mkdir()
    with subprocess.Popen(
        [
            runner_path(),
            str(plan),
            "--data",
            str(data),
            "--steps",
            "40",
            "--checkpoint-every",
            "20",
            "--out",
            str(out),
        ],
        stdout=subprocess.DEVNULL,
    ) as run:
        while not (out / "state.json").exists() and run.poll() is None:
            pass
        (out / "notes.txt").write_text("mine")
        assert run.wait(60) == 0

    kept = list(tmp_path.rglob("notes.txt"))
    assert [file.read_text() for file in kept] == ["mine"]
    assert json.loads((out / "state.json").read_text())["step"] == 40


@pytest.mark.parametrize("name", ["file", "missing/checkpoint"])
def test_a_place_that_cannot_be_written_is_known_before_the_first_step(
    name: str, plan: Path, data: Path, tmp_path: Path
) -> None:
    """Not after hours of training."""
    (tmp_path / "file").write_text("a file, no folder")
    metrics = tmp_path / "metrics.jsonl"
    done = call(plan, "--data", data, "--steps", 1, "--out", tmp_path / name, "--metrics", metrics)

    assert done.returncode == 6
    assert metrics.read_text() == ""
    assert (tmp_path / "file").read_text() == "a file, no folder"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_wherever_it_is_met(plan: Path, data: Path) -> None:
    """Metrics, the trace and the result itself; the reason is said."""
    run = (plan, "--data", data, "--steps", 2)
    metrics = call(*run, "--metrics", "/dev/full")
    trace = call(*run, "--trace", "/dev/full", "--trace-steps", "0..1")
    with Path("/dev/full").open("w") as full:
        result = call(*run, "--json", stdout=full.fileno())

    assert (metrics.returncode, trace.returncode, result.returncode) == (6, 6, 6)
    assert "cannot write the metrics" in metrics.stderr
    assert "Success" not in trace.stderr
    assert "cannot write the result" in result.stderr


@pytest.mark.parametrize("value", ["nan", "inf", "1e999"])
def test_numbers_of_options_are_finite(value: str) -> None:
    done = call("--sample", "--init", "nowhere", "--temperature", value)

    assert done.returncode == 2
    assert f"--temperature: got '{value}', expected a number" in done.stderr


def test_weights_never_move_before_the_norm_is_known(data: Path, tmp_path: Path) -> None:
    """Without clipping a plan may put OPT first; a norm that is not finite could then hold nothing back."""
    case = Case(pp=1)
    plan = case.having(optimizer=replace(case.optimizer, clip=0.0)).write(tmp_path / "a.plan")
    edit(
        plan, lambda text: text.replace("NORM @norm\nWC @norm\nOPT 0/0\n", "OPT 0/0\nNORM @norm\nWC @norm\n")
    )
    done = call(plan, "--data", data, "--steps", 1)

    assert done.returncode == 4
    assert re.search(r"a.plan:\d+: engine.unsupported: an OPT before the NORM is known", done.stderr)


def test_one_norm_decides_for_all_ranks(data: Path, tmp_path: Path) -> None:
    """A norm over some ranks would skip a step on those alone, and the weights would drift apart."""
    plan = Case(pp=4).write(tmp_path / "a.plan")

    def two_groups(text: str) -> str:
        head, *programs = text.replace(
            "group norm axes=pp\n", "group norma axes=pp pp=0,1\ngroup normb axes=pp pp=2,3\n"
        ).split("program ")
        named = [
            body.replace("@norm\n", "@norma\n" if rank < 2 else "@normb\n")
            for rank, body in enumerate(programs)
        ]
        return "program ".join([head, *named])

    edit(plan, two_groups)
    done = call(plan, "--data", data, "--steps", 1)

    assert done.returncode == 4
    assert "engine.unsupported: a NORM over some pipeline ranks alone (group norma)" in done.stderr


def test_a_validation_keeps_off_slots_that_share_bytes(data: Path, tmp_path: Path) -> None:
    """Pools may overlap where their slots never live together in a step; a validation would mix them."""
    plan = Case(pp=1, m=1).write(tmp_path / "a.plan")
    edit(plan, _sharing)
    done = call(plan, "--check")
    assert done.returncode == 0, done.stderr
    done = call(plan, "--data", data, "--steps", 1)
    assert done.returncode == 0, done.stderr
    done = call(plan, "--data", data, "--steps", 1, "--eval-sequences", 2)

    assert done.returncode == 4
    assert "engine.unsupported: a validation on rank 0" in done.stderr


def _sharing(text: str) -> str:
    """Let w's first slot begin in the last bytes of a's, and the step use a second one behind it."""
    place = re.search(
        r"^pool pp=0 a n=1 bytes=(\d+) at=(\d+)\npool pp=0 w n=1 bytes=(\d+) at=\d+$", text, re.MULTILINE
    )
    assert place is not None
    a_bytes, a_at, w_bytes = (int(number) for number in place.groups())
    at = a_at + a_bytes - 64
    changed = text.replace(
        place[0], f"pool pp=0 a n=1 bytes={a_bytes} at={a_at}\npool pp=0 w n=2 bytes={w_bytes} at={at}"
    )
    changed = re.sub(
        r"^arena pp=0 bytes=\d+", f"arena pp=0 bytes={at + 2 * w_bytes}", changed, flags=re.MULTILINE
    )
    return re.sub(r"^(F 0\.0 .*a0 )w0$", r"\1w1", changed, flags=re.MULTILINE)
