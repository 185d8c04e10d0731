"""The trace: written as its page says, read strictly, summed up by its definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.assemble import ActorTimes, assemble
from exactmap.sim.engine.durations import ActorDurations, Durations, Lane, resolve
from exactmap.sim.engine.encoded import EncodedProgram
from exactmap.sim.engine.replay import replay
from exactmap.sim.engine.trace import Trace
from exactmap.sim.engine.trace_file import format_trace, parse_trace, read_trace, write_trace
from exactmap.sim.plan.instruction import Instruction, Op
from exactmap.sim.plan.plan import Program
from exactmap.sim.plan.reader import read_plan, sha256_of
from exactmap.sim.plan.text import parse_instruction

ROOT = Path(__file__).parent.parent.parent
WORKED_EXAMPLE = ROOT / "tests" / "golden" / "plans" / "valid" / "worked-example.plan"
HEADER = "# exactmap-trace 1 source=run plan_sha256=- mover=inline clock=ns"
COLUMNS = "step\tdp\tinner\tpp\tindex\tline\top\ta_ns\ts_ns\te_ns\tdone_ns"


def worked_example(*, hashed: bool = True) -> Trace:
    data = WORKED_EXAMPLE.read_bytes()
    plan = read_plan(data)
    work_ns = {(op, stage): ns for op, ns in (("F", 2000), ("I", 1000), ("W", 1000)) for stage in (0, 1)}
    opt_ns = {("OPT", stage, 0): 1000 for stage in (0, 1)}
    hop = {name: ChannelNs(0, 500) for name in "fb"}
    durations = resolve(plan, Profile(Mover.ENGINE, work_ns, opt_ns, hop))
    return replay(plan, durations, plan_sha256=sha256_of(data) if hashed else "")


def rows(*lines: str, header: str = HEADER) -> bytes:
    """A trace file; columns parted by blanks, blanks inside an op as _."""
    body = ["\t".join(line.split()).replace("_", " ") for line in lines]
    return ("\n".join([header, COLUMNS, *body]).replace("clock ns", "clock=ns") + "\n").encode()


# Two steps of one rank, a work, a post, its wait.
STEP = [
    "{} 0 0 0 0 9 F_0.0 0 0 10 -1",
    "{} 0 0 0 1 10 AR_0/0@dp 10 -1 10 30",
    "{} 0 0 0 2 11 WC_0/0@dp 10 -1 30 -1",
]
GOOD = [line.format(step) for step in (3, 4) for line in [*STEP, "{} 0 0 0 3 12 END 30 -1 30 -1"]]


def test_the_file_is_what_its_page_shows() -> None:
    """The example in docs/reference/trace.md is rank 1 of the worked example, byte for byte."""
    page = (ROOT / "docs" / "reference" / "trace.md").read_text(encoding="ascii")
    shown = page.split("## 2. An example")[1].split("```\n")[1].splitlines()
    lines = format_trace(worked_example(hashed=False)).splitlines()

    assert shown[0] == lines[0]
    assert shown[1] == lines[1]
    assert shown[2:] == lines[17 : 17 + len(shown) - 2]


def test_lines_are_those_of_the_plan_file() -> None:
    trace = worked_example()
    plan_lines = WORKED_EXAMPLE.read_text(encoding="ascii").splitlines()

    assert [plan_lines[line - 1] for line in trace.line.tolist()] == list(trace.op)


def test_a_trace_survives_its_file(tmp_path: Path) -> None:
    trace, path = worked_example(), tmp_path / "step.trace"

    write_trace(trace, path)
    again = read_trace(path)

    assert again.same_times(trace)
    assert format_trace(again) == format_trace(trace)
    assert list(again.op) == list(trace.op)
    assert again.summary() == trace.summary()


def test_replicas_are_kept() -> None:
    header = HEADER.replace("source=run", "source=replay") + " replicas=0:7,2:1"

    trace = parse_trace(rows(*GOOD[:4], header=header))

    assert trace.replicas == {0: 7, 2: 1}
    assert "replicas=0:7\n" in format_trace(trace)  # a replica that stands for itself goes without saying


def test_a_run_of_several_steps_is_summed_up_step_by_step() -> None:
    trace = parse_trace(rows(*GOOD))

    assert trace.steps == (3, 4)
    assert trace.summary(4).makespan_ns == 30
    with pytest.raises(InvalidInputError, match="several steps"):
        trace.summary()
    with pytest.raises(InvalidInputError, match="does not hold that step"):
        trace.summary(5)
    with pytest.raises(InvalidInputError, match="does not hold one step of that rank"):
        trace.actor(0)
    assert list(trace.of_step(4).actor(0).op) == ["F 0.0", "AR 0/0@dp", "WC 0/0@dp", "END"]


def test_summary_of_the_worked_example() -> None:
    summary = worked_example().summary()

    assert summary.makespan_ns == 14000
    assert summary.period_ns == 13000
    assert summary.bubble == 1 - 8 / 14
    assert summary.steady_bubble == 1 - 8 / 13
    assert [rank.end_ns for rank in summary.ranks] == [14000, 11500]
    assert summary.ranks[0].busy_ns == {"F": 4000, "B": 4000, "ZERO": 0, "OPT": 1000}
    assert summary.ranks[0].exposed_ns == {"WS": 0, "WR": 5000}
    assert summary.exposed_ns == {"WS": 0, "WR": 7500}


def test_a_mean_over_ranks_weighs_replicas() -> None:
    """Three replicas are busy 10 of 30, one 30 of 30."""
    header = HEADER.replace("source=run", "source=replay") + " replicas=0:3"
    other = ["0 1 0 0 0 9 F_0.0 0 0 30 -1", "0 1 0 0 1 10 END 30 -1 30 -1"]
    first = ["0 0 0 0 0 9 F_0.0 0 0 10 -1", "0 0 0 0 1 10 END 10 -1 10 -1"]

    assert parse_trace(rows(*first, *other, header=header)).summary().bubble == 1 - (3 * 10 + 30) / (4 * 30)


def test_a_trace_without_rows_is_empty() -> None:
    trace = parse_trace(rows())

    assert (len(trace), trace.steps) == (0, ())


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ("", "not a trace"),
        (HEADER + " ", "not a trace"),
        (HEADER.replace("run", "walk"), "not a trace"),
        (HEADER.replace("trace 1", "trace 2"), "a trace of another version"),
        (HEADER.replace("sha256=-", "sha256=0123"), "not a trace"),
        (HEADER + " replicas=2:1,0:1", "replicas must ascend"),
        (HEADER + " replicas=0:0", "replicas must ascend"),
        (HEADER + " replicas=00:1", "not a whole number"),
        (HEADER + " replicas=0:" + "9" * 30, "not a whole number"),
    ],
)
def test_a_wrong_first_line_is_refused(header: str, what: str) -> None:
    with pytest.raises(InvalidInputError, match=f"line 1.*{what}"):
        parse_trace(rows(*GOOD, header=header))


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        (b"\tinner", b"", 2, "wrong column names"),
        (b"10\t-1\t10\t30", b"10\t-1\t10", 4, "wrong number of columns"),
        (b"\t10\t30\n", b"\t10\t030\n", 4, "done_ns: not a whole number"),
        (b"\t10\t30\n", b"\t10\t9223372036854775808\n", 4, "done_ns: not a whole number"),
        (b"3\t0\t0\t0\t1\t", b"3\t0\t-1\t0\t1\t", 4, "inner: not a whole number"),
        (b"F 0.0", b"G 0.0", 3, "op: unknown instruction"),
        (b"F 0.0", b"F \xc30", 3, "not ASCII"),
        (b"F 0.0\t", b"F 0.0\r\t", 3, "carriage return"),
        (b"\nstep", b"\n\nstep", 2, "wrong column names"),
        (b"3\t0\t0\t0\t1\t", b"3\t0\t0\t0\t2\t", 4, "index: instructions do not count up"),
        (b"\n4\t0\t0\t0\t0\t", b"\n4\t0\t0\t0\t1\t", 7, "index: instructions do not count up"),
        (b"3\t0\t0\t0\t1\t", b"3\t0\t0\t1\t1\t", 5, "rows are out of order"),
        (b"\n4\t0\t0\t0\t0\t", b"\n2\t0\t0\t0\t0\t", 7, "rows are out of order"),
        (b"\t11\tWC 0/0@dp\t", b"\t11\tEND\t", 5, "a row stands after END"),
        (b"\t12\tEND\t30\t-1\t30\t-1\n4", b"\t12\tMARK x\t30\t-1\t30\t-1\n4", 6, "last row is not END"),
        (b"F 0.0\t0\t0\t10", b"F 0.0\t11\t11\t10", 3, "left before it was reached"),
        (b"F 0.0\t0\t0\t10", b"F 0.0\t0\t11\t10", 3, "a work starts outside of its time"),
        (b"F 0.0\t0\t0\t10", b"F 0.0\t0\t-1\t10", 3, "a work starts outside of its time"),
        (b"dp\t10\t-1\t30\t-1", b"dp\t10\t10\t30\t-1", 5, "only works and posts start something"),
        (b"dp\t10\t-1\t10\t30", b"dp\t10\t-1\t10\t9", 4, "over before it was posted"),
        (b"F 0.0\t0\t0\t10\t-1", b"F 0.0\t0\t0\t10\t10", 3, "only what a post starts can be over"),
        (b"dp\t10\t-1\t10\t30", b"dp\t9\t-1\t10\t30", 4, "reached before the instruction above was left"),
    ],
)
def test_what_is_no_trace_is_refused_by_line(old: bytes, new: bytes, line: int, what: str) -> None:
    data = rows(*GOOD)
    assert old in data

    with pytest.raises(InvalidInputError, match=rf"x\.trace:{line}:? .*{what}"):
        parse_trace(data.replace(old, new, 1), "x.trace")


def test_a_file_cut_short_is_refused() -> None:
    """Cut anywhere, the rest is no trace; nothing but an InvalidInputError comes of it."""
    data = rows(*GOOD[:4])

    for size in range(len(data)):
        kept = data[:size]
        if kept == rows():
            continue
        with pytest.raises(InvalidInputError):
            parse_trace(kept)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"nowhere\.trace"):
        read_trace(tmp_path / "nowhere.trace")


def test_texts_are_the_plans_own_whether_few_or_all_are_asked_for() -> None:
    """Braids, marks and parts among them; single rows come first, then whole programs."""
    texts = ["MARK one", "F 0.0 a0 w0", "FB{F 0.1 a1 w1|B 0.0}", "MARK two", "FB{B 0.1|F 0.2:x a0}"]
    texts += ["OFF 0.2.1 o0", "WOFF 0.2.1", "A2A_D F 0.2:x@ep", "WC F 0.2:x@ep", "END"] + ["MARK end"] * 40
    instructions = [Instruction(Op.END) if text == "END" else parse_instruction(text) for text in texts]
    plan = read_plan(WORKED_EXAMPLE.read_bytes())
    program = Program("P0", [each for each in instructions if each])
    encoded = EncodedProgram(program, 0, program.table.op, *[np.zeros(0, dtype=np.int64)] * 9)
    nothing = np.zeros(len(texts), dtype=np.int64)
    durations = Durations(
        Mover.ENGINE, (Lane((0,)),), {(0, 0): ActorDurations(encoded, nothing, nothing, nothing)}, {}
    )
    trace = assemble("events", plan, durations, {(0, 0): ActorTimes(*[nothing] * 4)}, plan_sha256="")

    assert [trace.op[row] for row in (4, 3, 2)] == [texts[row] for row in (4, 3, 2)]
    assert list(trace.op) == texts
