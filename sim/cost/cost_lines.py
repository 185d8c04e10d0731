"""The `cost` lines of a plan: the profile that it was priced with, so that the file alone can be simulated.

Keys: ``F.3`` pass of a stage; ``OPT.3.0`` bucket 3/0; ``chan.f.wire`` (``lat``, ``copy``);
``group.dp.AR.3.0``; ``copy.OFF.3``; ``post.SF``; ``FB.F.3.B.4`` a braid; ``issue``;
``inline`` (1: mover inline, 0: mover engine). Values are integer ns.
"""

from __future__ import annotations

from collections.abc import Iterable

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.profile import Braid, ChannelNs, Mover, Profile

__all__ = ["profile_from_cost_lines", "to_cost_lines"]

_BUCKET_OPS = frozenset({"ZERO", "OPT", "PV", "UNDO"})
_PASSES = frozenset({"F", "I", "W", "B", "RC"})


def to_cost_lines(profile: Profile) -> tuple[tuple[str, int], ...]:
    """Write a profile as (key, value) pairs, sorted within each kind."""
    pairs: list[tuple[str, int]] = [
        ("inline", int(profile.mover is Mover.INLINE)),
        ("issue", profile.issue_ns),
    ]
    pairs += [(f"{op}.{stage}", ns) for (op, stage), ns in sorted(profile.work_ns.items())]
    pairs += [(f"{op}.{stage}.{index}", ns) for (op, stage, index), ns in sorted(profile.bucket_ns.items())]
    for name, times in sorted(profile.channel.items()):
        parts = (("wire", times.wire_ns), ("lat", times.lat_ns), ("copy", times.copy_ns))
        pairs += [(f"chan.{name}.{part}", ns) for part, ns in parts]
    groups = {
        ".".join(["group", group, op, *(str(n) for n in (stage, bucket) if n is not None)]): ns
        for (group, op, stage, bucket), ns in profile.group_ns.items()
    }
    pairs += sorted(groups.items())
    pairs += [(f"copy.{op}.{stage}", ns) for (op, stage), ns in sorted(profile.copy_ns.items())]
    pairs += [(f"post.{op}", ns) for op, ns in sorted(profile.post_ns.items())]
    braids = {
        ".".join(["FB", *(f"{op}.{stage}" for op, stage in members)]): ns
        for members, ns in profile.braid_ns.items()
    }
    pairs += sorted(braids.items())
    return tuple(pairs)


def profile_from_cost_lines(pairs: Iterable[tuple[str, int]], source: str = "") -> Profile:
    """Read the pairs back to an equal profile; `source` names the plan in messages.

    Raises
    ------
    InvalidInputError
        If there are none, or a key has another form.
    """
    profile = Profile(Mover.ENGINE, {})
    work: dict[tuple[str, int], int] = {}
    bucket: dict[tuple[str, int, int], int] = {}
    channel: dict[str, dict[str, int]] = {}
    group: dict[tuple[str, str, int | None, int | None], int] = {}
    copy: dict[tuple[str, int], int] = {}
    post: dict[str, int] = {}
    braid: dict[Braid, int] = {}
    mover, issue_ns = profile.mover, 0
    known = False
    for key, ns in pairs:
        known = True
        words = key.split(".")
        numbers = [int(word) for word in words if word.isdecimal()]
        match words:
            case ["inline"]:
                mover = Mover.INLINE if ns else Mover.ENGINE
            case ["issue"]:
                issue_ns = ns
            case ["post", op]:
                post[op] = ns
            case ["copy", op, _] if len(numbers) == 1:
                copy[op, numbers[0]] = ns
            case ["chan", name, ("wire" | "lat" | "copy") as part]:
                channel.setdefault(name, {})[part] = ns
            case ["group", name, op, *rest] if len(rest) == len(numbers) <= 2:
                stage = numbers[0] if numbers else None
                group[name, op, stage, numbers[1] if len(numbers) == 2 else None] = ns
            case ["FB", *rest] if rest and set(rest[::2]) <= _PASSES and len(rest) == 2 * len(numbers):
                braid[tuple(zip(rest[::2], numbers, strict=True))] = ns
            case [op, _] if op in _PASSES and len(numbers) == 1:
                work[op, numbers[0]] = ns
            case [op, _, _] if op in _BUCKET_OPS and len(numbers) == 2:
                bucket[op, numbers[0], numbers[1]] = ns
            case _:
                raise InvalidInputError(
                    "unknown cost", where=source or None, got=key, hint="remove the cost line"
                )
    if not known:
        raise InvalidInputError(
            "the plan says nothing about costs",
            where=source or None,
            hint="give durations: --profile profile.json",
        )
    channels = {
        name: ChannelNs(times.get("wire", 0), times.get("lat", 0), times.get("copy", 0))
        for name, times in channel.items()
    }
    return Profile(mover, work, bucket, channels, group, copy, post, braid, issue_ns)
