"""Phase 2 of the checks, first half: model, training, mesh, stages, placement, channels, groups.

`docs/reference/plan-format.md`, section 7. Checks stand in the order of the header; the first failure is
raised.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Final

from exactmap.sim.plan.memory_map import check_memory_map
from exactmap.sim.plan.parameters import check_buckets, check_ties
from exactmap.sim.plan.plan import Group, Plan
from exactmap.sim.plan.program_map import check_maps
from exactmap.sim.plan.verdict import PlanError

__all__ = ["check_declarations"]

_AXES: Final = ("tp", "cp", "ep", "pp", "dp")
_INNER_AXES: Final = ("tp", "cp", "ep")
_COUPLED: Final = ("F", "I", "W", "B", "RC")
_MAX_WORLD: Final = 1 << 31

Fail = Callable[..., PlanError]


def check_declarations(plan: Plan, fail: Fail) -> None:
    """Check the header.

    Parameters
    ----------
    plan
        The plan.
    fail
        Makes the error: `PlanError` with the file's name bound.

    Raises
    ------
    PlanError
        With a `head.*` or `arena.budget` code.
    """
    _check_model(plan, fail)
    _check_train(plan, fail)
    _check_mesh(plan, fail)
    _check_stages(plan, fail)
    _check_place(plan, fail)
    _check_couple(plan, fail)
    _check_channels(plan, fail)
    _check_groups(plan, fail)
    check_buckets(plan, fail)
    check_ties(plan, fail)
    check_memory_map(plan, fail)
    check_maps(plan, fail)


def _check_model(plan: Plan, fail: Fail) -> None:
    model, line = plan.model, plan.line_of("model")
    if model.heads % model.kv_heads:
        raise fail(
            "head.model",
            line,
            "heads must be a multiple of kv_heads",
            got=f"heads={model.heads} kv_heads={model.kv_heads}",
            hint="each group of query heads shares one key-value head",
        )
    if model.kind == "llama" and model.head_dim % 2:
        raise fail(
            "head.model", line, "rotary positions need an even head_dim", got=f"head_dim={model.head_dim}"
        )
    if plan.train.seq > model.positions:
        raise fail(
            "head.model",
            line,
            "the sequence is longer than the model's positions",
            got=f"seq={plan.train.seq}",
            expected=f"at most positions={model.positions}",
        )


def _check_train(plan: Plan, fail: Fail) -> None:
    train, line = plan.train, plan.line_of("train")
    if train.seq % train.slices:
        raise fail(
            "head.train",
            line,
            "seq must be a multiple of slices",
            got=f"seq={train.seq} slices={train.slices}",
        )
    for key, value in (("beta1", train.beta1), ("beta2", train.beta2)):
        if value >= 1:
            raise fail("head.train", line, f"{key} is out of range", got=str(value), expected="less than 1")


def _check_mesh(plan: Plan, fail: Fail) -> None:
    mesh, line = plan.mesh, plan.line_of("mesh")
    if sorted(mesh.order) != sorted(_AXES):
        raise fail(
            "head.mesh",
            line,
            "order must name each axis once",
            got=",".join(mesh.order),
            expected="a permutation of " + ",".join(_AXES),
        )
    world = prod((mesh.tp, mesh.cp, mesh.ep, mesh.pp, mesh.dp))
    if world > _MAX_WORLD:
        raise fail("head.mesh", line, "too many ranks", got=str(world), expected=f"at most {_MAX_WORLD}")


def _check_stages(plan: Plan, fail: Fail) -> None:
    numbers = plan.stage_numbers or tuple(range(len(plan.stages)))
    last_stage = len(plan.stages) - 1
    next_layer = 0
    for index, stage in enumerate(plan.stages):
        line = plan.line_of("stage", index)
        if numbers[index] != index:
            raise fail(
                "head.stage",
                line,
                "stages must be numbered 0, 1, 2, ..",
                got=str(numbers[index]),
                expected=str(index),
            )
        if stage.first >= 0:
            if stage.first != next_layer or stage.last < stage.first or stage.last >= plan.model.layers:
                raise fail(
                    "head.stage",
                    line,
                    "layers must follow on from the stage before, each layer once",
                    got=f"{stage.first}..{stage.last}",
                    expected=f"a range from {next_layer} to at most {plan.model.layers - 1}",
                )
            next_layer = stage.last + 1
        if stage.embedding != (index == 0):
            what = "only stage 0 holds the embedding" if index else "stage 0 must hold the embedding"
            raise fail("head.stage", line, what)
        if stage.head and index != last_stage:
            raise fail("head.stage", line, "only the last stage holds the head")
        if len(set(stage.parts)) != len(stage.parts):
            raise fail("head.stage", line, "a part is named twice", got=",".join(stage.parts))
    line = plan.line_of("stage", last_stage)
    if next_layer != plan.model.layers:
        raise fail(
            "head.stage",
            line,
            "the stages do not hold all layers",
            got=f"{next_layer} layers",
            expected=f"layers={plan.model.layers} of the model line",
        )
    if not plan.stages[last_stage].head:
        raise fail("head.stage", line, "the last stage must hold the head")


def _check_place(plan: Plan, fail: Fail) -> None:
    line = plan.line_of("place")
    numbers = plan.place_numbers or tuple(range(len(plan.place)))
    if numbers != tuple(range(len(plan.stages))):
        raise fail(
            "head.place",
            line,
            "every stage must be placed once, in order",
            got=_joined(numbers),
            expected=f"0 to {len(plan.stages) - 1}",
        )
    for stage, ranks in enumerate(plan.place):
        if any(rank >= plan.mesh.pp for rank in ranks):
            raise fail(
                "head.place",
                line,
                f"stage {stage} is placed on a rank that the mesh does not have",
                got=_joined(ranks),
                expected=f"ranks below pp={plan.mesh.pp}",
            )
        if not _ascending(ranks):
            raise fail("head.place", line, f"ranks of stage {stage} must ascend", got=_joined(ranks))
    used = {rank for ranks in plan.place for rank in ranks}
    if len(used) < plan.mesh.pp:
        missing = next(rank for rank in range(plan.mesh.pp) if rank not in used)
        raise fail("head.place", line, "a pipeline rank has no stage", got=f"rank {missing}")


def _check_couple(plan: Plan, fail: Fail) -> None:
    line = plan.line_of("couple")
    kinds = [kind for kind, _ in plan.couple]
    if not _ascending([_COUPLED.index(kind) for kind in kinds]):
        raise fail(
            "head.couple", line, "kinds must stand once each, in the order F I W B RC", got=" ".join(kinds)
        )
    for kind, axes in plan.couple:
        if not set(axes) <= set(_INNER_AXES) or not _ascending([_INNER_AXES.index(axis) for axis in axes]):
            raise fail(
                "head.couple",
                line,
                f"axes of {kind} are not valid",
                got=",".join(axes),
                expected="some of tp, cp, ep, once each and in this order",
            )


def _check_channels(plan: Plan, fail: Fail) -> None:
    seen: set[str] = set()
    for index, channel in enumerate(plan.channels):
        line = plan.line_of("chan", index)
        if channel.name in seen:
            raise fail("head.channel", line, "a channel's name is repeated", got=channel.name)
        seen.add(channel.name)
        if channel.src >= plan.mesh.pp or channel.dst >= plan.mesh.pp:
            raise fail(
                "head.channel",
                line,
                f"channel {channel.name} leads to a rank that the mesh does not have",
                got=f"{channel.src}>{channel.dst}",
                expected=f"ranks below pp={plan.mesh.pp}",
            )
        if channel.src == channel.dst:
            raise fail(
                "head.channel",
                line,
                f"channel {channel.name} ends where it starts",
                got=f"{channel.src}>{channel.dst}",
                hint="stages on one rank hand over by LF and LB",
            )


def _check_groups(plan: Plan, fail: Fail) -> None:
    seen: set[str] = set()
    for index, group in enumerate(plan.groups):
        wrong = _group_fault(plan, group)
        if group.name in seen:
            wrong = "the name is repeated"
        seen.add(group.name)
        if wrong is not None:
            raise fail("head.group", plan.line_of("group", index), f"group {group.name}: {wrong}")


def _group_fault(plan: Plan, group: Group) -> str | None:
    if len(set(group.axes)) != len(group.axes):
        return f"an axis is repeated: {','.join(group.axes)}"
    if group.pp:
        if "pp" not in group.axes:
            return "pp= needs the axis pp"
        if group.pp[-1] >= plan.mesh.pp or not _ascending(group.pp):
            return f"pp={_joined(group.pp)} must ascend and stay below {plan.mesh.pp}"
    if group.scan and group.axes != ("pp",):
        return f"a scan walks one line of ranks: axes={','.join(group.axes)}, expected axes=pp"
    return None


def _ascending(values: tuple[int, ...] | list[int]) -> bool:
    return all(a < b for a, b in pairwise(values))


def _joined(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values))
