"""Durations of one plan on one machine: what an engine needs beside the plan itself.

A plan says what happens in which order; a profile says how long each piece takes, in integer nanoseconds,
and who moves the bytes. Defaults are those of the model of time: ``B`` = ``I`` + ``W``, ``RC`` = ``F``,
a braid the sum of its members; posts, ``ZERO``, ``PV`` and ``UNDO`` cost nothing unless the profile says so.
Anything else that is missing is an error, never a zero.

As a file a profile is one JSON document; keys are written as in a plan
(``"F 3"``, ``"OPT 3/0"``, ``"AR 3/0@dp"``, ``"FB F 3|B 4"``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from re import fullmatch
from typing import NamedTuple, cast

from exactmap.errors import InvalidInputError, Place

__all__ = ["PROFILE_SCHEMA_VERSION", "Braid", "ChannelNs", "Mover", "Profile"]

PROFILE_SCHEMA_VERSION = 1

_FREE_BUCKET_OPS = frozenset({"ZERO", "PV", "UNDO"})
_PASSES = ("F", "I", "W", "B", "RC")

Braid = tuple[tuple[str, int], ...]
"""Members of a braid in listed order, each as (op, stage)."""


class Mover(StrEnum):
    """Who moves bytes between ranks."""

    ENGINE = "engine"
    """A copy engine or network card, beside compute."""
    INLINE = "inline"
    """The rank itself, inside its waits."""


class ChannelNs(NamedTuple):
    """Times of a channel: `wire_ns` occupies it, `lat_ns` only delays, `copy_ns` empties a receive buffer."""

    wire_ns: int
    lat_ns: int = 0
    copy_ns: int = 0


@dataclass(frozen=True, slots=True)
class Profile:
    """Durations of a plan's instructions on one machine, all in integer nanoseconds.

    Parameters
    ----------
    mover
        Who moves bytes.
    work_ns
        (op, stage) -> duration, for ops ``F I W B RC``.
    bucket_ns
        (op, stage, bucket) -> duration, for ops ``ZERO OPT PV UNDO``.
    channel
        Channel name -> its times.
    group_ns
        (group, op, stage, bucket) -> duration of that collective; stage and bucket are None where the op
        has none (``NORM``, ``CHK``) or where all stages cost the same.
    copy_ns
        (op, stage) -> duration of ``OFF`` or ``LD`` on the rank's copy queue.
    post_ns
        op -> what posting costs the rank.
    braid_ns
        Members of a braid, each as (op, stage) in listed order -> duration of the whole; a braid that is not
        listed takes the sum of its members.
    issue_ns
        Time that the host needs to issue one instruction; 0 where the host does not run ahead of a device.

    Raises
    ------
    InvalidInputError
        If a duration is negative, or a braid's members are no passes.

    Examples
    --------
    >>> profile = Profile(
    ...     Mover.ENGINE,
    ...     work_ns={("F", 0): 2000, ("I", 0): 1000, ("W", 0): 1000},
    ...     bucket_ns={("OPT", 0, 0): 1000},
    ...     channel={"f": ChannelNs(500)},
    ...     braid_ns={(("F", 0), ("B", 0)): 3500},
    ... )
    >>> profile.work("B", 0), profile.bucket("ZERO", 0, 0), profile.post("SF")
    (2000, 0, 0)
    >>> profile.braid((("F", 0), ("B", 0))), profile.braid((("B", 0), ("F", 0)))
    (3500, 4000)
    """

    mover: Mover
    work_ns: Mapping[tuple[str, int], int]
    bucket_ns: Mapping[tuple[str, int, int], int] = field(default_factory=dict)
    channel: Mapping[str, ChannelNs] = field(default_factory=dict)
    group_ns: Mapping[tuple[str, str, int | None, int | None], int] = field(default_factory=dict)
    copy_ns: Mapping[tuple[str, int], int] = field(default_factory=dict)
    post_ns: Mapping[str, int] = field(default_factory=dict)
    braid_ns: Mapping[Braid, int] = field(default_factory=dict)
    issue_ns: int = 0

    __hash__ = None  # type: ignore[assignment]  # equal by value, and its mappings have no hash

    def __post_init__(self) -> None:
        """Refuse negative durations and braids of anything but passes."""
        for members in self.braid_ns:
            if not members or any(op not in _PASSES or stage < 0 for op, stage in members):
                raise InvalidInputError(
                    "a braid is made of passes",
                    where=Place(field=f"braid_ns {_braid_key(members)}"),
                    got=" ".join(op for op, _ in members) or "no member",
                    expected="one or more of " + " ".join(_PASSES),
                )
        for name, entries in self._tables().items():
            for key, value in entries.items():
                if value < 0:
                    raise InvalidInputError(
                        "a duration is negative", where=Place(field=f"{name} {key}"), got=f"{value} ns"
                    )
        if self.issue_ns < 0:
            raise InvalidInputError(
                "a duration is negative", where=Place(field="issue_ns"), got=f"{self.issue_ns} ns"
            )

    def work(self, op: str, stage: int) -> int:
        """Duration in ns of a work instruction; ``B`` falls back to ``I`` + ``W``, ``RC`` to ``F``.

        Raises
        ------
        InvalidInputError
            If the profile has no such duration.
        """
        value = self.work_ns.get((op, stage))
        if value is not None:
            return value
        if op == "B":
            return self.work("I", stage) + self.work("W", stage)
        if op == "RC":
            return self.work("F", stage)
        raise _missing(f"{op} {stage}", "work_ns")

    def braid(self, members: Braid) -> int:
        """Duration in ns of a braid with these members, (op, stage) in listed order; else their sum.

        Raises
        ------
        InvalidInputError
            If the profile has neither the braid nor all of its members.
        """
        value = self.braid_ns.get(members)
        return value if value is not None else sum(self.work(op, stage) for op, stage in members)

    def bucket(self, op: str, stage: int, bucket: int) -> int:
        """Duration in ns of ``ZERO OPT PV UNDO`` on a bucket; only ``OPT`` must be given."""
        value = self.bucket_ns.get((op, stage, bucket))
        if value is not None:
            return value
        if op in _FREE_BUCKET_OPS:
            return 0
        raise _missing(f"{op} {stage}/{bucket}", "bucket_ns")

    def post(self, op: str) -> int:
        """What posting `op` costs the rank, in ns."""
        return self.post_ns.get(op, 0)

    def transfer(self, channel: str) -> ChannelNs:
        """Times of a channel."""
        try:
            return self.channel[channel]
        except KeyError:
            raise _missing(channel, "channel") from None

    def group(self, group: str, op: str, stage: int | None = None, bucket: int | None = None) -> int:
        """Duration in ns of a collective: of the bucket, else of the stage, else of the group alone."""
        for key in ((group, op, stage, bucket), (group, op, stage, None), (group, op, None, None)):
            value = self.group_ns.get(key)
            if value is not None:
                return value
        raise _missing(_group_key((group, op, stage, bucket)), "group_ns")

    def copy(self, op: str, stage: int) -> int:
        """Duration in ns of ``OFF`` or ``LD`` of one item of a stage."""
        try:
            return self.copy_ns[(op, stage)]
        except KeyError:
            raise _missing(f"{op} {stage}", "copy_ns") from None

    def to_json(self) -> str:
        """Write the profile as a JSON document; `from_json` reads it back to an equal profile."""
        document = {
            "schema_version": PROFILE_SCHEMA_VERSION,
            "kind": "profile",
            "mover": self.mover.value,
            **{
                name: dict(sorted(entries.items()))
                for name, entries in self._tables().items()
                if name != "channel"
            },
            "channel": {name: times._asdict() for name, times in sorted(self.channel.items())},
            "issue_ns": self.issue_ns,
        }
        return json.dumps(document, indent=1) + "\n"

    @staticmethod
    def from_json(text: str, source: str | Path | None = None) -> Profile:
        """Read a profile strictly: unknown keys, non-integers and malformed names are errors.

        Parameters
        ----------
        text
            The document.
        source
            Its file, for messages.

        Raises
        ------
        InvalidInputError
            If the document is no profile of this version.
        """
        return _read_profile(text, source)

    def _tables(self) -> dict[str, dict[str, int]]:
        """All durations under their written names."""
        return {
            "work_ns": {f"{op} {stage}": ns for (op, stage), ns in self.work_ns.items()},
            "bucket_ns": {f"{op} {stage}/{bucket}": ns for (op, stage, bucket), ns in self.bucket_ns.items()},
            "channel": {
                f"{name}.{part}": ns
                for name, times in self.channel.items()
                for part, ns in times._asdict().items()
            },
            "group_ns": {_group_key(key): ns for key, ns in self.group_ns.items()},
            "copy_ns": {f"{op} {stage}": ns for (op, stage), ns in self.copy_ns.items()},
            "post_ns": dict(self.post_ns),
            "braid_ns": {_braid_key(members): ns for members, ns in self.braid_ns.items()},
        }


def _group_key(key: tuple[str, str, int | None, int | None]) -> str:
    group, op, stage, bucket = key
    operand = "" if stage is None else f" {stage}" if bucket is None else f" {stage}/{bucket}"
    return f"{op}{operand}@{group}"


def _braid_key(members: Braid) -> str:
    return "FB " + "|".join(f"{op} {stage}" for op, stage in members)


def _missing(key: str, table: str) -> InvalidInputError:
    return InvalidInputError(
        f"the profile has no duration for {key}",
        where=Place(field=table),
        hint="price the plan's own stages, channels and groups, or calibrate this machine again",
    )


class _Reader:
    """Reads one document and names the field that is wrong."""

    def __init__(self, text: str, source: str | Path | None) -> None:
        self.source = source
        try:
            loaded: object = json.loads(text, object_pairs_hook=self._pairs)
        except json.JSONDecodeError as error:
            raise InvalidInputError(
                "not a JSON document", where=Place(source, error.lineno), got=error.msg
            ) from None
        except RecursionError:
            raise InvalidInputError("nested too deeply", where=Place(source)) from None
        self.document = self.mapping(loaded, "document")

    def fail(
        self, what: str, name: str, got: object = None, expected: str | None = None
    ) -> InvalidInputError:
        shown = None if got is None else repr(got)
        return InvalidInputError(what, where=Place(self.source, field=name), got=shown, expected=expected)

    def _pairs(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        out: dict[str, object] = {}
        for key, value in pairs:
            if key in out:
                raise self.fail("the key stands twice", key)
            out[key] = value
        return out

    def mapping(self, value: object, name: str) -> dict[str, object]:
        if not isinstance(value, dict):
            raise self.fail("wrong type", name, value, "an object")
        return cast(dict[str, object], value)

    def duration(self, value: object, name: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.fail("wrong type", name, value, "a whole number of ns, 0 or more")
        return value

    def table(self, name: str) -> dict[str, int]:
        entries = self.mapping(self.document.get(name, {}), name)
        return {key: self.duration(value, f"{name}.{key}") for key, value in entries.items()}


_PASS_RE = rf"(?:{'|'.join(_PASSES)}) (?:0|[1-9]\d{{0,8}})"


def _members(text: str) -> Braid:
    """Members of a braid from a text as ``F 3|B 4``."""
    pairs = (member.split(" ") for member in text.split("|"))
    return tuple((op, int(stage)) for op, stage in pairs)


def _read_profile(text: str, source: str | Path | None) -> Profile:
    reader = _Reader(text, source)
    document = reader.document
    known = {"schema_version", "kind", "mover", "channel", "issue_ns"}
    known |= {"work_ns", "bucket_ns", "group_ns", "copy_ns", "post_ns", "braid_ns"}
    for key in document:
        if key not in known:
            raise reader.fail("unknown key", key)
    if document.get("schema_version") != PROFILE_SCHEMA_VERSION or document.get("kind") != "profile":
        got = f"{document.get('kind')} version {document.get('schema_version')}"
        raise reader.fail(
            "not a profile of this version", "schema_version", got, f"profile {PROFILE_SCHEMA_VERSION}"
        )
    mover = document.get("mover")
    if mover not in list(Mover):
        raise reader.fail("unknown mover", "mover", mover, " or ".join(Mover))

    def split(table: str, pattern: str) -> list[tuple[tuple[str | None, ...], int]]:
        out: list[tuple[tuple[str | None, ...], int]] = []
        for key, value in reader.table(table).items():
            match = fullmatch(pattern, key)
            if match is None:
                raise reader.fail("malformed key", f"{table}.{key}", None, f"a name like {pattern}")
            out.append((match.groups(), value))
        return out

    stage_op = r"([A-Z]+) (\d{1,9})"
    channel: dict[str, ChannelNs] = {}
    for name, entry in reader.mapping(document.get("channel", {}), "channel").items():
        times = reader.mapping(entry, f"channel.{name}")
        if set(times) != set(ChannelNs._fields):
            raise reader.fail("wrong keys", f"channel.{name}", sorted(times), ", ".join(ChannelNs._fields))
        channel[name] = ChannelNs(
            **{key: reader.duration(value, f"channel.{name}.{key}") for key, value in times.items()}
        )
    return Profile(
        mover=Mover(str(mover)),
        work_ns={(str(op), int(stage or 0)): ns for (op, stage), ns in split("work_ns", stage_op)},
        bucket_ns={
            (str(op), int(stage or 0), int(bucket or 0)): ns
            for (op, stage, bucket), ns in split("bucket_ns", stage_op + r"/(\d{1,9})")
        },
        channel=channel,
        group_ns={
            (
                str(group),
                str(op),
                None if stage is None else int(stage),
                None if bucket is None else int(bucket),
            ): ns
            for (op, stage, bucket, group), ns in split(
                "group_ns", r"([A-Z_0-9]+)(?: (\d{1,9})(?:/(\d{1,9}))?)?@([A-Za-z0-9_.-]+)"
            )
        },
        copy_ns={(str(op), int(stage or 0)): ns for (op, stage), ns in split("copy_ns", stage_op)},
        post_ns=reader.table("post_ns"),
        braid_ns={
            _members(str(members)): ns
            for (members,), ns in split("braid_ns", rf"FB ({_PASS_RE}(?:\|{_PASS_RE})*)")
        },
        issue_ns=reader.duration(document.get("issue_ns", 0), "issue_ns"),
    )
