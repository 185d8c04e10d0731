"""The strict YAML reader: plain data as YAML 1.2 has it, with the place of each value."""

from __future__ import annotations

import time

import pytest

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.scenario.document import Marked, apply_override, merge
from exactmap.sim.scenario.strict_yaml import MAX_NODES, read_yaml


def test_plain_values_are_what_they_look_like() -> None:
    """Only true and false are booleans, 1e6 is a number, times and version numbers are text."""
    text = b"a: 1e6\nb: NO\nc: 12:30\nd: true\ne: '1'\nf: ~\ng: -3\nh: 1_000\ni: .inf\nj: 0x10\nk: 8.0e11\n"

    value = read_yaml(text).value

    assert value == {
        "a": 1e6,
        "b": "NO",
        "c": "12:30",
        "d": True,
        "e": "1",
        "f": None,
        "g": -3,
        "h": "1_000",
        "i": ".inf",
        "j": "0x10",
        "k": 8.0e11,
    }


def test_every_value_knows_its_line() -> None:
    """A value that is not there takes the place of what is around it."""
    marked = read_yaml(b"a:\n  b:\n    - x: 1\n", "f.yaml")

    assert marked.place(("a", "b", 0, "x")) == Place("f.yaml", 3, "a.b.0.x")
    assert marked.place(("a", "c")) == Place("f.yaml", 1, "a.c")


def test_all_problems_are_reported_at_once() -> None:
    """An anchor, an alias and a key that stands twice, each with its line."""
    with pytest.raises(InvalidInputError) as caught:
        read_yaml(b"a: &x 1\nb: *x\na: 2\n", "f.yaml")

    message = str(caught.value)
    assert message.startswith("3 problems")
    assert "f.yaml:1: a: anchors are not allowed" in message
    assert "f.yaml:2: b: aliases are not allowed" in message
    assert "f.yaml:3: a: the key stands twice: got lines 1 and 3" in message


@pytest.mark.parametrize(
    "text",
    [b"[" * 3000, b"{a: " * 3000, b"- " * 3000, b"a:\n" + b"- 1\n" * (MAX_NODES + 1), b'"' + b"\\x41" * 9],
)
def test_hostile_documents_end_quickly_in_an_error(text: bytes) -> None:
    """Depth and number of values are checked while reading: no recursion error, no minutes."""
    start = time.process_time()

    with pytest.raises(InvalidInputError):
        read_yaml(text)

    assert time.process_time() - start < 10


def test_an_override_replaces_one_value_and_takes_the_blame() -> None:
    """Errors about it name the option, not the file."""
    document = read_yaml(b"a:\n  b: [1, 2]\n", "f.yaml")

    changed = apply_override(apply_override(document, "a.b.1=7"), "a.c.d=[x, 1e3]")

    assert changed.value == {"a": {"b": [1, 7], "c": {"d": ["x", 1000.0]}}}
    assert changed.place(("a", "b", 1)) == Place("--set a.b.1=7", None, "a.b.1")
    assert changed.place(("a", "b", 0)) == Place("f.yaml", 2, "a.b.0")
    assert document.value == {"a": {"b": [1, 2]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.b", "not an override"),
        ("=1", "not an override"),
        ("a..b=1", "not an override"),
        ("a.b.2=1", "no such place in the list: got 2, expected 0 to 1"),
        ("a.b.x=1", "no such place in the list: got x"),
        ("n.x=1", "the path runs into a value that has no parts: got n = 3"),
        ("a.b=[1", "the value is not YAML"),
        ("a.b=*x", "the value is not YAML"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(text: str, message: str) -> None:
    """Each with the whole option as its place."""
    document = read_yaml(b"a:\n  b: [1, 2]\nn: 3\n")

    with pytest.raises(InvalidInputError) as caught:
        apply_override(document, text)

    assert str(caught.value).startswith(f"--set {text}: {message}")


def test_merging_joins_mappings_and_replaces_the_rest() -> None:
    """A fact gives way to a bare number, and places follow their values."""
    base = read_yaml(b"g:\n  m: {value: 1, source: s, confidence: given}\n  k: 2\n", "base.yaml")
    over = Marked({"g": {"m": 5}}, {("g",): Place("my.yaml", 9), ("g", "m"): Place("my.yaml", 10)})

    merged = merge(base, over)

    assert merged.value == {"g": {"m": 5, "k": 2}}
    assert merged.place(("g", "m")).line == 10
    assert merged.place(("g", "k")).line == 3
