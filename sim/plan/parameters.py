"""Phase 2 of the checks: buckets of parameters and ties between them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final

from exactmap.sim.plan.plan import Bucket, Plan
from exactmap.sim.plan.verdict import PlanError

__all__ = ["check_buckets", "check_ties", "shares_embedding", "stage_parts"]

_PARTS: Final = ("wte", "wpe", "layers", "norm", "head")

Fail = Callable[..., PlanError]


def stage_parts(plan: Plan, stage: int) -> tuple[str, ...]:
    """Parts of the parameters that a stage may hold, in the order of the bucket line."""
    declared = plan.stages[stage]
    present = {
        "wte": declared.embedding,
        "wpe": declared.embedding and plan.model.kind == "gpt",
        "layers": declared.first >= 0,
        "norm": declared.head,
        "head": declared.head,
    }
    return tuple(part for part in _PARTS if present[part])


def shares_embedding(plan: Plan) -> bool:
    """Whether the head stage uses the embedding's own bucket: tied, and no bucket of it holds `head`."""
    last = len(plan.stages) - 1
    return plan.model.tied and not any(
        "head" in bucket.holds for bucket in plan.buckets if bucket.stage == last
    )


def check_buckets(plan: Plan, fail: Fail) -> None:
    """Check all bucket lines, then that each part of each stage is held (code `head.bucket`)."""
    held: set[tuple[int, str]] = set()
    groups = {group.name for group in plan.groups}
    before = (-1, -1)
    for index, bucket in enumerate(plan.buckets):
        line = plan.line_of("bucket", index)
        name = f"bucket {bucket.stage}/{bucket.index}"
        if bucket.stage >= len(plan.stages):
            raise fail("head.bucket", line, f"{name}: no such stage", expected=f"below {len(plan.stages)}")
        stage, last_index = before
        follows = bucket.index == last_index + 1 if bucket.stage == stage else bucket.index == 0
        if bucket.stage < stage or not follows:
            raise fail(
                "head.bucket",
                line,
                f"{name} is out of order",
                expected=f"{stage}/{last_index + 1} or a later stage's first" if stage >= 0 else "0/0",
            )
        before = (bucket.stage, bucket.index)
        wrong = _bucket_fault(plan, bucket, held, groups)
        if wrong is not None:
            raise fail("head.bucket", line, f"{name}: {wrong}")
        held.update((bucket.stage, part) for part in bucket.holds)
    _check_all_held(plan, held, fail)
    _check_shared_embedding(plan, fail)


def _bucket_fault(plan: Plan, bucket: Bucket, held: set[tuple[int, str]], groups: set[str]) -> str | None:
    allowed = stage_parts(plan, bucket.stage)
    for part in bucket.holds:
        if part not in allowed:
            return f"stage {bucket.stage} has no part {part}, expected of {','.join(allowed) or 'none'}"
        if (bucket.stage, part) in held:
            return f"part {part} is held by another bucket already"
    places = [_PARTS.index(part) for part in bucket.holds]
    if any(a >= b for a, b in pairwise(places)):
        return f"parts must stand once each, in the order {' '.join(_PARTS)}"
    if bucket.elements == 0:
        return "elements must be at least 1"
    for group in (*((bucket.shard,) if bucket.shard else ()), *bucket.reduce):
        if group not in groups:
            return f"no group {group} is declared"
    if len(set(bucket.reduce)) != len(bucket.reduce):
        return f"a group is named twice: reduce={','.join(bucket.reduce)}"
    return None


def _check_all_held(plan: Plan, held: set[tuple[int, str]], fail: Fail) -> None:
    line = plan.line_of("bucket", len(plan.buckets) - 1)
    for stage in range(len(plan.stages)):
        for part in stage_parts(plan, stage):
            if (stage, part) not in held and not (part == "head" and plan.model.tied):
                raise fail(
                    "head.bucket",
                    line,
                    f"no bucket holds part {part} of stage {stage}",
                    hint="every parameter is stepped by exactly one bucket",
                )


def _check_shared_embedding(plan: Plan, fail: Fail) -> None:
    if not shares_embedding(plan):
        return
    last = len(plan.stages) - 1
    missing = [rank for rank in plan.place[last] if rank not in plan.place[0]]
    if missing:
        index = next(index for index, bucket in enumerate(plan.buckets) if bucket.stage == last)
        raise fail(
            "head.bucket",
            plan.line_of("bucket", index),
            f"the tied head on rank {missing[0]} has no bucket with wte on its rank",
            hint="hold `head` in a bucket of the last stage and tie it to that of `wte`",
        )


def check_ties(plan: Plan, fail: Fail) -> None:
    """Check the tie lines, and that a tied head on another rank has one (code `head.tie`)."""
    if not plan.ties:
        if plan.model.tied and not shares_embedding(plan):
            line = plan.line_of("bucket", len(plan.buckets) - 1)
            raise fail(
                "head.tie",
                line,
                "the model is tied, its head has a bucket, and no tie line joins it to wte",
                hint="add `tie S/K S/K`, or leave `head` out of the bucket",
            )
        return
    buckets = {(bucket.stage, bucket.index): bucket for bucket in plan.buckets}
    for index, tie in enumerate(plan.ties):
        line = plan.line_of("tie", index)
        if not plan.model.tied:
            raise fail("head.tie", line, "the model is not tied", expected="tied=yes on the model line")
        first, second = buckets.get(tie.first), buckets.get(tie.second)
        if first is None or second is None:
            stage, number = tie.first if first is None else tie.second
            raise fail("head.tie", line, "no such bucket", got=f"{stage}/{number}")
        wrong = "a second tie" if index else _tie_fault(plan, first, second)
        if wrong is not None:
            raise fail("head.tie", line, wrong)


def _tie_fault(plan: Plan, first: Bucket, second: Bucket) -> str | None:
    if "wte" not in first.holds or "head" not in second.holds:
        return "a tie joins a bucket with wte to a bucket with head"
    if first.elements != second.elements:
        return f"tied buckets differ in size: {first.elements} and {second.elements} elements"
    ranks = {*plan.place[first.stage], *plan.place[second.stage]}
    if len(ranks) < len(plan.place[first.stage]) + len(plan.place[second.stage]):
        return "both are placed on one rank, which keeps one buffer: leave `head` out of the bucket"
    shared = set(first.reduce) & set(second.reduce)
    for group in plan.groups:
        if group.name in shared and "pp" in group.axes and (not group.pp or ranks <= set(group.pp)):
            return None
    return f"no group over ranks {','.join(map(str, sorted(ranks)))} is in both reduce lists"
