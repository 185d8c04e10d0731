"""Two readers of one format: the C engine's verdict on a plan is Python's, code and line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from exactmap.backend_c import check as engine
from exactmap.errors import InvalidInputError
from exactmap.sim.plan import verdict, write_plan
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.workload.model import ModelConfig, ModelKind

CORPUS = Path(__file__).parents[1] / "golden" / "plans"
ROWS = [row.split("\t") for row in (CORPUS / "verdicts.tsv").read_text(encoding="ascii").splitlines()[1:]]
WORKED = (CORPUS / "valid" / "worked-example.plan").read_bytes()


def sealed(text: bytes) -> bytes:
    """The plan with the hash of the body that it has."""
    first, _, rest = text.split(b"\n", 2)
    return b"\n".join([first, b"body sha256=" + hashlib.sha256(rest).hexdigest().encode(), rest])


@pytest.mark.parametrize(("name", "code", "line"), [row[:3] for row in ROWS], ids=[row[0] for row in ROWS])
def test_both_readers_give_the_verdict_that_was_written_down(name: str, code: str, line: str) -> None:
    data = (CORPUS / name).read_bytes()
    said = engine.verdict(data)
    found = verdict(data, name)

    assert (said.code, said.line) == (code, int(line))
    assert (found.code, found.line) == (code, int(line))


@pytest.mark.parametrize("name", [row[0] for row in ROWS if row[1].startswith("graph.")])
def test_both_readers_name_the_same_cycle(name: str) -> None:
    """The whole cycle, a line each, from its lowest actor on."""
    data = (CORPUS / name).read_bytes()
    cycle = [str(actor) for actor in verdict(data).cycle]

    assert len(cycle) >= 2
    assert [line.strip() for line in engine.verdict(data).message.splitlines()[1:]] == cycle


@pytest.mark.parametrize("name", [row[0] for row in ROWS if row[1].startswith("prog.")])
def test_a_refused_instruction_is_named_with_its_rank(name: str) -> None:
    data = (CORPUS / name).read_bytes()
    said = engine.verdict(data)
    line = data.split(b"\n")[said.line - 1].decode("ascii")

    assert re.match(r"rank \d+: ", said.message)
    assert "(" in line or f": {line}: " in said.message


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Change the first occurrence of a text that must be there."""

    def change(text: bytes) -> bytes:
        assert old in text
        return text.replace(old, new, 1)

    return change


def repeated(text: str) -> Callable[[bytes], bytes]:
    """Put lines before the first END."""
    return replaced(b"\nEND\n", b"\n" + text.encode() + b"\nEND\n")


EDITS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no change": (lambda text: text, "ok"),
    "minor version": (replaced(b"1.0\n", b"1.77\n"), "ok"),
    "minor version too large": (replaced(b"1.0\n", b"1.9223372036854775808\n"), "text.version"),
    "carriage return": (replaced(b"serial=yes\n", b"serial=yes\r\n"), "text.ascii"),
    "empty line": (replaced(b"serial=yes\n", b"\nserial=yes\n"), "text.keyword"),
    "leading space": (replaced(b"serial=yes\n", b" serial=yes\n"), "text.keyword"),
    "trailing space": (replaced(b"serial=yes\n", b"serial=yes \n"), "text.line"),
    "two spaces": (replaced(b"OPT 0/0", b"OPT  0/0"), "text.line"),
    "leading zero": (replaced(b"limit=3", b"limit=03"), "text.line"),
    "largest int": (replaced(b"seed=1", b"seed=9223372036854775807"), "ok"),
    "int too large": (replaced(b"seed=1", b"seed=9223372036854775808"), "text.range"),
    "int of forty digits": (replaced(b"seed=1", b"seed=" + b"9" * 40), "text.range"),
    "exponent": (replaced(b"lr=1e-3", b"lr=1e-400"), "ok"),
    "exponent with a zero": (replaced(b"lr=1e-3", b"lr=1e-03"), "text.line"),
    "exponent with a plus": (replaced(b"lr=1e-3", b"lr=1e+3"), "text.line"),
    "infinite": (replaced(b"lr=1e-3", b"lr=1e400"), "text.range"),
    "point alone": (replaced(b"lr=1e-3", b"lr=1."), "text.line"),
    "long mantissa": (replaced(b"lr=1e-3", b"lr=0." + b"1" * 900), "ok"),
    "minus": (replaced(b"clip=0", b"clip=-1"), "text.line"),
    "zero sequence": (replaced(b"seq=64", b"seq=0"), "text.range"),
    "beta of one": (replaced(b"beta2=0.95", b"beta2=1.0"), "head.train"),
    "short name": (repeated("MARK " + "m" * 32), "ok"),
    "long name": (repeated("MARK " + "m" * 33), "text.line"),
    "name with a capital": (repeated("MARK Half"), "text.line"),
    "line of 4096 bytes": (replaced(b"made by=", b"made by=" + b"x" * 4084), "ok"),
    "line of 4097 bytes": (replaced(b"made by=", b"made by=" + b"x" * 4085), "text.size"),
    "value with an equals sign": (replaced(b"by=hand", b"by==hand="), "ok"),
    "cost with a fraction": (replaced(b"F=2000", b"F=2.5"), "text.line"),
    "extension": (replaced(b"map pp=0", b"x-tool any  printable ~text\nmap pp=0"), "ok"),
    "extension without text": (replaced(b"map pp=0", b"x-tool \nmap pp=0"), "text.line"),
    "extension too early": (replaced(b"made by", b"x-tool a\nmade by"), "text.order"),
    "instruction in the header": (replaced(b"serial=yes", b"END\nserial=yes"), "text.keyword"),
    "header in a body": (repeated("limit=3"), "text.order"),
    "instruction after END": (replaced(b"\nEND\n", b"\nEND\nMARK a\n"), "text.order"),
    "brace alone": (repeated("}"), "text.rep"),
    "empty REP": (repeated("REP i=0..1 {\n}"), "text.rep"),
    "REP": (repeated("REP i=0..9 {\nMARK a\n}"), "ok"),
    "REP in a REP": (repeated("REP i=0..1 {\nREP j=0..1 {\nMARK a\n}\n}"), "text.rep"),
    "REP left open": (repeated("REP i=0..1 {\nMARK a"), "text.rep"),
    "REP backwards": (repeated("REP i=1..0 {\nMARK a\n}"), "text.rep"),
    "REP of a capital": (repeated("REP I=0..1 {\nMARK a\n}"), "text.line"),
    "REP beyond the index fields": (repeated("REP i=0..1048576 {\nMARK a\n}"), "text.range"),
    "REP of a million": (repeated("REP i=0..1048575 {\nMARK a\n}"), "ok"),
    "REP of too many": (
        repeated("REP i=0..1048575 {\n" + "\n".join(["MARK a"] * 16) + "\nMARK b\n}"),
        "text.rep",
    ),
    "REP of braids of too many": (
        repeated("REP i=0..1048575 {\nFB{" + "|".join(["B 0.0"] * 17) + "}\n}"),
        "text.rep",
    ),
    "REP below zero": (repeated("REP i=0..3 {\nWS 0.(i-1)@f\n}"), "text.rep"),
    "REP below zero inside a modulus": (repeated("REP i=0..3 {\nRB 0.0@b h((i-1)%4)\n}"), "text.rep"),
    "REP modulo zero": (repeated("REP i=0..3 {\nRB 0.0@b h((i)%0)\n}"), "text.range"),
    "REP of another letter": (repeated("REP i=0..3 {\nWS 0.(j)@f\n}"), "text.rep"),
    "parenthesis outside": (repeated("WS 0.(i)@f"), "text.rep"),
    "parenthesis in a stage": (repeated("REP i=0..1 {\nWS (i).0@f\n}"), "text.line"),
    "unknown channel": (replaced(b"SF 0.0@f", b"SF 0.0@g"), "prog.ref"),
    "slot beyond the index fields": (replaced(b"F 0.0 h0", b"F 0.0 h1048576"), "text.range"),
    "slots out of order": (replaced(b"h0 a0 w0", b"a0 h0 w0"), "text.line"),
    "braid of one": (replaced(b"\nB 0.0\n", b"\nFB{B 0.0}\n"), "ok"),
    "braid of a braid": (replaced(b"\nB 0.0\n", b"\nFB{FB{B 0.0}}\n"), "text.line"),
    "braid with a step": (replaced(b"\nB 0.0\n", b"\nFB{B 0.0|OPT 0/0}\n"), "text.line"),
    "braid of one item twice": (replaced(b"\nB 0.0\n", b"\nFB{B 0.0|B 0.0}\n"), "prog.order"),
    "tight limit": (replaced(b"limit=3", b"limit=2"), "prog.limit"),
    "hash in capitals": (lambda text: text.replace(text[30:94], text[30:94].upper(), 1), "text.line"),
}


@pytest.mark.parametrize("name", EDITS)
def test_both_readers_agree_on_small_changes(name: str) -> None:
    """The worked example, changed in one place."""
    change, code = EDITS[name]
    text = change(WORKED)
    data = text if name == "hash in capitals" else sealed(text)
    found, said = verdict(data), engine.verdict(data)

    assert found.code == code
    assert (said.code, said.line) == (found.code, found.line)


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"\x00", b"exactmap-plan 1.0", b"exactmap-plan 1.0\n", WORKED[:-1]]
)
def test_both_readers_agree_on_what_is_no_plan(data: bytes) -> None:
    found, said = verdict(data), engine.verdict(data)

    assert not said.accepted
    assert (said.code, said.line) == (found.code, found.line)


@pytest.mark.parametrize(
    ("schedule", "pp", "chunks"),
    [("gpipe", 4, 1), ("1f1b", 4, 1), ("interleaved-1f1b", 4, 2), ("zb-h1", 4, 1), ("1f1b", 1, 1)],
)
@pytest.mark.parametrize("num_microbatches", [4, 16])
def test_the_engine_accepts_what_schedules_make(
    schedule: str, pp: int, chunks: int, num_microbatches: int
) -> None:
    model = ModelConfig(
        ModelKind.LLAMA,
        layers=8,
        hidden=16,
        heads=2,
        kv_heads=1,
        head_dim=8,
        ffn=32,
        vocab=64,
        positions=32,
        tied=False,
    )
    plan = build_plan(
        model,
        schedule=schedule,
        pp=pp,
        num_microbatches=num_microbatches,
        seq=16,
        chunks=chunks,
        dp=2,
    )

    assert engine.verdict(write_plan(plan)) == engine.EngineVerdict("ok")


def test_a_file_is_refused_with_its_line_code_and_hint() -> None:
    engine.check_file(CORPUS / "valid" / "worked-example.plan")
    with pytest.raises(
        InvalidInputError, match=r"crossing-sends\.plan:\d+: graph\.deadlock: .*\n.*rank 0"
    ) as caught:
        engine.check_file(CORPUS / "invalid" / "graph-deadlock-crossing-sends.plan")

    assert caught.value.hint
    with pytest.raises(InvalidInputError, match="cannot be read"):
        engine.check_file(CORPUS / "no-such.plan")
