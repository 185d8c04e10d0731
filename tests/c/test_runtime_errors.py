"""What the engine refuses and how runs end: by name, with the right code, never with a hang."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from engine_case import Case, edit, make_data

from exactmap.backend_c.locate import runner_path
from exactmap.backend_c.run import RunOptions, check_support, run_plan
from exactmap.errors import ExactmapError, ExecutionFailedError, ExecutionHungError, InvalidInputError
from exactmap.sim.data.tokens import TokenWriter
from exactmap.sim.plan.reader import read_plan
from exactmap.sim.plan.writer import write_plan
from exactmap.sim.schedules.build import OptimizerSettings

pytestmark = pytest.mark.sanitize


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("engine")).folder


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return Case().write(tmp_path / "a.plan")


def call(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([runner_path(), *map(str, words)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "pp=0 grads bytes=",
            "pp=0 grads bytes=6",
            r"engine.bytes: region pp=0 grads: got \d+ bytes, expected \d+",
        ),
        ("param=f32", "param=bf16", "engine.unsupported: precision other than f32"),
    ],
)
def test_what_the_engine_cannot_run_is_refused_by_name(plan: Path, old: str, new: str, message: str) -> None:
    """The message names region or feature; no memory is taken and no data is read."""
    text = plan.read_text()

    assert old in text
    if "bytes=" in old:  # one region that is 64 bytes too short; nothing moves
        start = text.index(old) + len(old)
        size = text[start:].split(" ", 1)[0]
        new_text = text[:start] + str(int(size) - 64) + text[start + len(size) :]
    else:
        new_text = text.replace(old, new)
    edit(plan, lambda _: new_text)
    with pytest.raises(ExactmapError, match=message):
        check_support(plan)


def test_a_bucket_of_another_size_is_refused(plan: Path) -> None:
    """The engine's own layout of the parameters decides."""
    parsed = read_plan(plan.read_bytes(), "a.plan")
    bucket = f"elements={parsed.buckets[0].elements}"
    edit(plan, lambda text: text.replace(bucket, f"elements={parsed.buckets[0].elements + 16}", 1))
    with pytest.raises(InvalidInputError, match=r"engine.bytes: bucket 0/0 elements"):
        check_support(plan)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a plan file is missing"),
        (["a.plan"], "--data DIR is missing"),
        (["a.plan", "b.plan"], "unexpected argument"),
        (["a.plan", "--data"], "--data needs a text"),
        (["a.plan", "--data", "d", "--steps", "-1"], "--steps: got '-1', expected a whole number"),
        (["a.plan", "--data", "d", "--steps", "99999999999999999999"], "expected a whole number"),
        (["a.plan", "--data", "d", "--trace", "t"], "--trace needs --trace-steps"),
        (["a.plan", "--data", "d", "--trace-steps", "5..3"], "expected a range"),
        (["a.plan", "--data", "d", "--eval-every", "3"], "--eval-every needs"),
        (["a.plan", "--data", "d", "--pin=yes"], "unknown option"),
        (["--nonsense"], "unknown option"),
        (["--sample"], "--sample needs --init"),
    ],
)
def test_wrong_usage_ends_with_code_2(words: list[str], message: str) -> None:
    """The message says what was expected, and the usage follows."""
    done = call(*words)

    assert done.returncode == 2
    assert message in done.stderr
    assert "usage: exactmap-run" in done.stderr
    assert done.stdout == ""


def test_a_broken_plan_ends_with_code_3_and_its_line(plan: Path) -> None:
    plan.write_text(plan.read_text().replace("END\n", "END \n", 1))
    done = call(plan, "--check")

    assert done.returncode == 3
    assert f"error: {plan}:" in done.stderr
    assert "text.line" in done.stderr


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "train.tok").unlink(), "cannot open"),
        (lambda d: (d / "train.tok").write_bytes(b""), "not a token file"),
        (lambda d: (d / "train.tok").write_bytes((d / "train.tok").read_bytes()[:-3]), "cut short"),
        (lambda d: flip(d / "train.tok", -1), "the tokens are damaged"),
        (lambda d: flip(d / "train.tok", 0), "does not start with EXMTOK01"),
        (lambda d: write_tokens(d, 259, 20), "expected at least 25"),
        (lambda d: write_tokens(d, 300, 2000), "vocabulary of 300, the plan's model has 259"),
    ],
)
def test_damaged_data_is_refused(
    damage: Callable[[Path], object], message: str, plan: Path, data: Path, tmp_path: Path
) -> None:
    """Token files are checked before the first step."""
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    damage(copy)
    with pytest.raises(InvalidInputError, match=message):
        run_plan(plan, copy, RunOptions(steps=1))


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def write_tokens(folder: Path, vocab: int, count: int) -> None:
    with TokenWriter(folder / "train.tok", 2, vocab, "own") as writer:
        writer.write(np.arange(count) % vocab)


def test_a_token_outside_of_the_model_names_rank_and_line(data: Path, tmp_path: Path) -> None:
    """A token that its header does not allow is found by the pass that meets it, and all ranks end."""
    plan = Case(dp=2, m=2).write(tmp_path / "a.plan")
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    content = bytearray((copy / "train.tok").read_bytes())
    content[128:] = np.full((len(content) - 128) // 2, 260, "<u2").tobytes()
    (copy / "train.tok").write_bytes(content)
    with pytest.raises(
        InvalidInputError, match=r"a.plan:\d+: rank 0 dp [01]: F 0.0.*: step 1: a token is outside"
    ):
        run_plan(plan, copy, RunOptions(steps=5, verify_data=False))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", lambda p: flip(p, -5), "the checkpoint is damaged"),
        ("optimizer.safetensors", lambda p: flip(p, -5), "the checkpoint is damaged"),
        ("model.safetensors", lambda p: p.unlink(), "cannot open"),
        ("state.json", lambda p: p.write_text("{"), "not JSON"),
        ("state.json", lambda p: p.write_text("{}"), "not the state of a checkpoint"),
        ("state.json", lambda p: p.write_text("[" * 100), "nested deeper"),
        ("state.json", lambda p: change_json(p, schema_version=2), "checkpoint version 2"),
        ("state.json", lambda p: change_json(p, step=-1), "expected step, updates"),
        ("state.json", lambda p: change_json(p, seed=5), "trained with seed 5"),
        ("state.json", lambda p: change_json(p, data_sha256="0" * 64), "trained on other data"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    name: str, damage: Callable[[Path], object], message: str, plan: Path, data: Path, tmp_path: Path
) -> None:
    """No run goes on from half a checkpoint, nor from one that belongs to other data."""
    run_plan(plan, data, RunOptions(steps=1, out=tmp_path / "out"))
    damage(tmp_path / "out" / name)
    with pytest.raises(InvalidInputError, match=message):
        run_plan(plan, data, RunOptions(steps=2, resume=tmp_path / "out"))


def change_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_checkpoint_of_another_model_is_refused(plan: Path, data: Path, tmp_path: Path) -> None:
    run_plan(plan, data, RunOptions(steps=0, out=tmp_path / "out"))
    other = Case(ffn=64).write(tmp_path / "b.plan")
    with pytest.raises(InvalidInputError, match=r"mlp.*: got shape \[.*48.*\], expected \[.*64.*\]"):
        run_plan(other, data, RunOptions(steps=1, init=tmp_path / "out"))
    more = Case(layers=5).write(tmp_path / "c.plan")
    with pytest.raises(InvalidInputError, match=r"tensor model.layers.4.* is missing"):
        run_plan(more, data, RunOptions(steps=1, init=tmp_path / "out"))


def test_a_run_without_progress_names_who_waits(data: Path, tmp_path: Path) -> None:
    """A pass that outlasts the time limit looks like a hang: every rank's line is shown, and the run ends."""
    case = Case(hidden=256, ffn=2048, head_dim=64, seq=256, microbatch=8, m=1)
    plan = case.write(tmp_path / "a.plan")
    started = time.monotonic()
    with pytest.raises(ExecutionHungError, match=r"no progress for 0.03 s") as caught:
        run_plan(plan, data, RunOptions(steps=50, timeout_s=0.03))

    assert time.monotonic() - started < 60
    assert "rank 0 dp 0 line " in caught.value.what
    assert "rank 1 dp 0 line " in caught.value.what
    assert caught.value.hint is not None
    assert "--timeout" in caught.value.hint


def test_an_output_that_cannot_be_written_is_an_error(plan: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ExecutionFailedError, match="cannot make"):
        run_plan(plan, data, RunOptions(steps=1, out=tmp_path / "no" / "such"))
    with pytest.raises(ExecutionFailedError, match="cannot write"):
        run_plan(plan, data, RunOptions(steps=1, trace=tmp_path / "no" / "t", trace_steps=(0, 0)))


def test_an_interrupt_ends_after_the_step_with_a_checkpoint(data: Path, tmp_path: Path) -> None:
    """SIGINT: the step in progress is finished, what was asked for is written, exit code 130."""
    plan = Case().write(tmp_path / "a.plan")
    words = [plan, "--data", data, "--steps", 10**7, "--out", tmp_path / "out", "--json"]
    words += ["--metrics", tmp_path / "m.jsonl"]
    with subprocess.Popen([runner_path(), *map(str, words)], stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not has_steps(tmp_path / "m.jsonl"):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    result = json.loads(stdout)
    assert result["interrupted"] is True
    assert json.loads((tmp_path / "out" / "state.json").read_text())["step"] == result["steps"] > 0


def has_steps(path: Path) -> bool:
    return path.exists() and '"record": "step"' in path.read_text()


def test_gradients_that_are_not_finite_leave_the_weights(data: Path, tmp_path: Path) -> None:
    """A learning rate that blows the model up: such steps are skipped and counted, the run goes on."""
    case = Case(optimizer=OptimizerSettings(lr=1e30, lr_min=1e30, warmup=0, steps=6, clip=0.0, seed=1))
    result = run_plan(case.write(tmp_path / "a.plan"), data, RunOptions(steps=6))

    assert result.skipped_steps > 0
    assert [step.skipped for step in result.history].count(True) == result.skipped_steps
    assert result.steps == 6


def test_a_trace_shows_the_chosen_steps(plan: Path, data: Path, tmp_path: Path) -> None:
    """Steps 2 and 3, every instruction, in the strict form that `exactmap.sim.engine.trace` reads."""
    from exactmap.sim.engine.trace_file import read_trace

    run_plan(plan, data, RunOptions(steps=5, trace=tmp_path / "t.tsv", trace_steps=(2, 3)))
    trace = read_trace(tmp_path / "t.tsv")
    parsed = read_plan(plan.read_bytes(), "a.plan")
    num = sum(len(parsed.program(pp).instructions) for pp in range(2))

    assert len(trace.step) == 2 * num
    assert set(trace.step.tolist()) == {2, 3}


def test_the_plan_written_again_runs_to_the_same_bits(plan: Path, data: Path, tmp_path: Path) -> None:
    """What the plan's reader and writer in Python hand on is the plan that the engine executes."""
    again = tmp_path / "b.plan"
    again.write_bytes(write_plan(read_plan(plan.read_bytes(), "a.plan")))
    first, second = (run_plan(p, data, RunOptions(steps=2)) for p in (plan, again))

    assert first.plan_sha256 == second.plan_sha256
    assert first.loss == second.loss
