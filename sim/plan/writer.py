"""Writes a plan as its canonical bytes: same plan, same bytes, on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import chain

from exactmap.sim.plan.plan import Plan, Program
from exactmap.sim.plan.table_text import table_lines
from exactmap.sim.plan.text import format_instruction, format_num

__all__ = ["header_text", "write_plan"]

_MAX_LINE_BYTES = 4096


def write_plan(plan: Plan) -> bytes:
    """The plan's canonical text.

    Parameters
    ----------
    plan
        The plan; it is not checked (`check_plan`).

    Returns
    -------
    bytes
        ASCII text with the body's SHA-256 filled in and no REP. Reading it back gives an equal plan.

    Raises
    ------
    ValueError
        If a number has no text in the grammar (negative or not finite).
    """
    body = "\n".join([*_body_header(plan), *chain.from_iterable(map(_program, plan.programs)), ""])
    return header_text(body.encode("ascii"), plan.minor)


def header_text(body: bytes, minor: int = 0) -> bytes:
    """The whole file for the bytes after its first two lines."""
    digest = hashlib.sha256(body).hexdigest()
    return f"exactmap-plan 1.{minor}\nbody sha256={digest}\n".encode("ascii") + body


def _program(program: Program) -> Iterable[str]:
    yield f"program {program.name}"
    try:
        table = program.table
    except (KeyError, OverflowError, ValueError):  # what no plan holds; it is written as it is
        yield from map(format_instruction, program.instructions)
    else:
        yield from table_lines(table)


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def _joined(values: Iterable[object]) -> str:
    return ",".join(map(str, values))


def _option(key: str, value: str) -> str:
    return f" {key}={value}" if value else ""


def _pairs(kind: str, pairs: Iterable[tuple[str, object]]) -> Iterable[str]:
    """Lines of `KEY=VALUE` pairs, each as long as a line may be."""
    line = kind
    for key, value in pairs:
        word = f" {key}={value}"
        if len(line) + len(word) > _MAX_LINE_BYTES:
            yield line
            line = kind
        line += word
    if line != kind:
        yield line


def _body_header(plan: Plan) -> Iterable[str]:
    yield from _model_and_training(plan)
    yield from _stages(plan)
    yield f"clock={plan.clock}"
    yield f"serial={_yes(plan.serial)}"
    yield f"limit={plan.limit}"
    if plan.couple:
        yield "couple " + " ".join(f"{kind}={_joined(axes)}" for kind, axes in plan.couple)
    if plan.budget >= 0:
        yield f"budget bytes={plan.budget}"
    yield from _queues_and_memory(plan)
    if plan.made:
        yield "made " + " ".join(f"{key}={value}" for key, value in plan.made)
    yield from _pairs("cost", plan.cost)
    yield from _pairs("pred", plan.pred)
    yield from plan.extras
    for line in plan.maps:
        yield f"map pp={line.pp}{'' if line.dp < 0 else f',dp={line.dp}'} {line.program}"


def _model_and_training(plan: Plan) -> Iterable[str]:
    model, train, precision, mesh = plan.model, plan.train, plan.precision, plan.mesh
    yield (
        f"model kind={model.kind} layers={model.layers} hidden={model.hidden} heads={model.heads} "
        f"kv_heads={model.kv_heads} head_dim={model.head_dim} ffn={model.ffn} vocab={model.vocab} "
        f"positions={model.positions} tied={_yes(model.tied)} eps={format_num(model.eps)} "
        f"theta={format_num(model.theta)}"
    )
    yield (
        f"train microbatch={train.microbatch} m={train.m} seq={train.seq} slices={train.slices} "
        f"optimizer={train.optimizer} lr={format_num(train.lr)} lr_min={format_num(train.lr_min)} "
        f"warmup={train.warmup} steps={train.steps} beta1={format_num(train.beta1)} "
        f"beta2={format_num(train.beta2)} eps={format_num(train.eps)} decay={format_num(train.decay)} "
        f"clip={format_num(train.clip)} seed={train.seed}"
    )
    yield (
        f"precision param={precision.param} grad={precision.grad} act={precision.act} "
        f"comm={precision.comm} moment={precision.moment}"
    )
    yield (
        f"mesh tp={mesh.tp} cp={mesh.cp} ep={mesh.ep} pp={mesh.pp} dp={mesh.dp} order={_joined(mesh.order)}"
    )


def _stages(plan: Plan) -> Iterable[str]:
    stage_numbers = plan.stage_numbers or range(len(plan.stages))
    for number, stage in zip(stage_numbers, plan.stages, strict=True):
        layers = "" if stage.first < 0 else f"{stage.first}..{stage.last}"
        yield (
            f"stage {number}{_option('layers', layers)}{' embedding' * stage.embedding}"
            f"{' head' * stage.head}{_option('parts', _joined(stage.parts))}"
        )
    place_numbers = plan.place_numbers or range(len(plan.place))
    fields = zip(place_numbers, plan.place, strict=True)
    yield "place " + " ".join(f"{number}={_joined(ranks)}" for number, ranks in fields)


def _queues_and_memory(plan: Plan) -> Iterable[str]:
    for channel in plan.channels:
        yield (
            f"chan {channel.name} {channel.src}>{channel.dst} {channel.cls} depth={channel.depth} "
            f"bytes={channel.bytes}"
        )
    for group in plan.groups:
        yield (
            f"group {group.name} axes={_joined(group.axes)}{_option('pp', _joined(group.pp))}"
            f"{_option('scan', group.scan)}"
        )
    for bucket in plan.buckets:
        yield (
            f"bucket {bucket.stage}/{bucket.index} holds={_joined(bucket.holds)} elements={bucket.elements}"
            f"{_option('shard', bucket.shard)}{_option('reduce', _joined(bucket.reduce))}"
        )
    for tie in plan.ties:
        yield f"tie {tie.first[0]}/{tie.first[1]} {tie.second[0]}/{tie.second[1]}"
    for arena in plan.arenas:
        yield f"arena pp={arena.pp} bytes={arena.bytes}"
    for region in plan.regions:
        yield f"region pp={region.pp} {region.kind} bytes={region.bytes} at={region.at}"
    for pool in plan.pools:
        yield f"pool pp={pool.pp} {pool.letter} n={pool.num} bytes={pool.bytes} at={pool.at}"
