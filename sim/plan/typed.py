"""Header lines, matched and bounded, as the typed declarations of a `Plan`."""

from __future__ import annotations

import re
from typing import TypeAlias

from exactmap.sim.plan.plan import (
    Arena,
    Bucket,
    Channel,
    Group,
    MapLine,
    MeshDims,
    Plan,
    PlanModel,
    PlanStage,
    PlanTrain,
    Pool,
    Precision,
    Program,
    Region,
    Tie,
)

__all__ = ["HeaderLines", "plan_of"]

HeaderLines: TypeAlias = dict[str, list[tuple[int, re.Match[str]]]]
"""Kind of line -> (line number, match) in file order."""


def plan_of(headers: HeaderLines, programs: tuple[Program, ...], program_lines: list[int]) -> Plan:
    """Build the plan from its header lines and programs."""

    def only(kind: str) -> re.Match[str]:
        return headers[kind][0][1]

    def all_of(kind: str) -> list[re.Match[str]]:
        return [match for _, match in headers[kind]]

    lines = {
        (kind, index): number for kind, found in headers.items() for index, (number, _) in enumerate(found)
    }
    lines |= {("program", index): number for index, number in enumerate(program_lines)}
    budget = all_of("budget")
    fields = _place(only("place")["stages"])
    made = [pair for match in all_of("made") for pair in _pairs(match)]
    cost = [(key, int(value)) for match in all_of("cost") for key, value in _pairs(match)]
    pred = [pair for match in all_of("pred") for pair in _pairs(match)]
    return Plan(
        model=_model(only("model")),
        train=_train(only("train")),
        precision=Precision(**only("precision").groupdict()),
        mesh=_mesh(only("mesh")),
        stages=tuple(_stage(match) for match in all_of("stage")),
        place=tuple(_ints(ranks) for _, ranks in fields),
        clock=only("clock")["clock"],
        serial=only("serial")["serial"] == "yes",
        limit=int(only("limit")["limit"]),
        channels=tuple(
            Channel(m["name"], int(m["src"]), int(m["dst"]), m["cls"], int(m["depth"]), int(m["bytes"]))
            for m in all_of("chan")
        ),
        groups=tuple(
            Group(m["name"], tuple(m["axes"].split(",")), _ints(m["pp"]), m["scan"] or "")
            for m in all_of("group")
        ),
        buckets=tuple(
            Bucket(
                int(m["stage"]),
                int(m["index"]),
                tuple(m["holds"].split(",")),
                int(m["elements"]),
                m["shard"] or "",
                _names(m["reduce"]),
            )
            for m in all_of("bucket")
        ),
        ties=tuple(Tie(_bucket(m["first"]), _bucket(m["second"])) for m in all_of("tie")),
        arenas=tuple(Arena(int(m["pp"]), int(m["bytes"])) for m in all_of("arena")),
        regions=tuple(
            Region(int(m["pp"]), m["kind"], int(m["bytes"]), int(m["at"])) for m in all_of("region")
        ),
        pools=tuple(
            Pool(int(m["pp"]), m["letter"], int(m["n"]), int(m["bytes"]), int(m["at"]))
            for m in all_of("pool")
        ),
        maps=tuple(
            MapLine(int(m["pp"]), -1 if m["dp"] is None else int(m["dp"]), m["program"])
            for m in all_of("map")
        ),
        programs=programs,
        couple=_couple(only("couple")["kinds"]) if headers["couple"] else (),
        budget=int(budget[0]["bytes"]) if budget else -1,
        made=tuple(made),
        cost=tuple(cost),
        pred=tuple(pred),
        extras=tuple(match[0] for match in all_of("x-")),
        minor=int(only("exactmap-plan")["minor"]),
        stage_numbers=tuple(int(match["stage"]) for match in all_of("stage")),
        place_numbers=tuple(stage for stage, _ in fields),
        header_lines=lines,
    )


def _place(text: str) -> list[tuple[int, str]]:
    """(stage, ranks) of each field of a place line, as written."""
    fields = (field.split("=") for field in text.split())
    return [(int(stage), ranks) for stage, ranks in fields]


def _ints(text: str | None) -> tuple[int, ...]:
    return tuple(int(digits) for digits in text.split(",")) if text else ()


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _bucket(text: str) -> tuple[int, int]:
    stage, index = text.split("/")
    return int(stage), int(index)


def _pairs(match: re.Match[str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for word in match["pairs"].split():
        key, _, value = word.partition("=")
        found.append((key, value))
    return found


def _couple(text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    fields = (field.split("=") for field in text.split())
    return tuple((kind, tuple(axes.split(","))) for kind, axes in fields)


def _model(match: re.Match[str]) -> PlanModel:
    return PlanModel(
        kind=match["kind"],
        layers=int(match["layers"]),
        hidden=int(match["hidden"]),
        heads=int(match["heads"]),
        kv_heads=int(match["kv_heads"]),
        head_dim=int(match["head_dim"]),
        ffn=int(match["ffn"]),
        vocab=int(match["vocab"]),
        positions=int(match["positions"]),
        tied=match["tied"] == "yes",
        eps=float(match["eps"]),
        theta=float(match["theta"]),
    )


def _train(match: re.Match[str]) -> PlanTrain:
    return PlanTrain(
        microbatch=int(match["microbatch"]),
        m=int(match["m"]),
        seq=int(match["seq"]),
        slices=int(match["slices"]),
        optimizer=match["optimizer"],
        lr=float(match["lr"]),
        lr_min=float(match["lr_min"]),
        warmup=int(match["warmup"]),
        steps=int(match["steps"]),
        beta1=float(match["beta1"]),
        beta2=float(match["beta2"]),
        eps=float(match["eps"]),
        decay=float(match["decay"]),
        clip=float(match["clip"]),
        seed=int(match["seed"]),
    )


def _mesh(match: re.Match[str]) -> MeshDims:
    sizes = {axis: int(match[axis]) for axis in ("tp", "cp", "ep", "pp", "dp")}
    return MeshDims(**sizes, order=tuple(match["order"].split(",")))


def _stage(match: re.Match[str]) -> PlanStage:
    has_layers = match["first"] is not None
    return PlanStage(
        int(match["first"]) if has_layers else -1,
        int(match["last"]) if has_layers else -1,
        match["embedding"] is not None,
        match["head"] is not None,
        _names(match["parts"]),
    )
