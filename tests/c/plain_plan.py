"""The plainest lowering of an order to a plan: what the engine's tests run before and beside the real one.

Every buffer has a slot of its own for as long as it can, a message is received right before its use and its
send is waited for at the program's end; so any order that respects its data can be lowered and cannot
deadlock. Sizes are asked of the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from engine_case import Case
from plain_program import Program

from exactmap.backend_c.run import footprint
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.partition import balance_layers, stages_of
from exactmap.sim.workload.footprint import stage_footprint

__all__ = ["PlainPlan"]

_REGIONS = ("params", "grads", "moments", "staging", "workspace")


@dataclass(frozen=True, slots=True)
class PlainPlan:
    """A plan to be written.

    Parameters
    ----------
    case
        Model and batch; its schedule is not looked at.
    order
        What each rank does; an F whose item is computed again names no stash.
    late
        Norms that scan and are validated in the next step (``clock=free``).
    sharded
        Parameters and gradients are shared out over the replicas; `rounds` gradients are summed in a step.
    """

    case: Case
    order: Order
    late: bool = False
    sharded: bool = False
    rounds: int = 1

    def write(self, path: Path) -> Path:
        """Write the file, with the bytes that the engine asks for."""
        ranks = [Program(self, rank) for rank in range(self.order.num_ranks)]
        for rank in ranks:
            rank.lower()
        dummy = [dict.fromkeys((*_REGIONS, *"hawgkpqo"), 64) for _ in ranks]
        self._write(path, ranks, dummy)
        self._write(path, ranks, footprint(path))
        return path

    # ---- declarations ----

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return self.order.num_stages

    @property
    def placement(self) -> tuple[tuple[int, ...], ...]:
        """Ranks of each stage, ascending."""
        return tuple(tuple(sorted(ranks)) for ranks in self.order.placement)

    @property
    def tied_apart(self) -> bool:
        """Whether embedding and head are tied and lie on different ranks."""
        return self.case.tied and set(self.placement[0]).isdisjoint(self.placement[-1])

    def buckets(self) -> list[tuple[int, int, tuple[str, ...], int, tuple[str, ...]]]:
        """(stage, index, parts, elements, groups that close it)."""
        case, model = self.case, self.case.model
        stages = stages_of(balance_layers(model.layers, self.num_stages))
        out = []
        for number, stage in enumerate(stages):
            elements = stage_footprint(model, stage, case.microbatch, case.seq).elements
            parts = [
                part
                for part, there in (
                    ("wte", stage.embedding),
                    ("wpe", stage.embedding and case.kind == "gpt"),
                    ("layers", stage.last >= stage.first),
                    ("norm", stage.head),
                    ("head", stage.head and (not case.tied or self.tied_apart)),
                )
                if there
            ]
            shared = [part for part in parts if self.tied_apart and part in {"wte", "head"}]
            own = [part for part in parts if part not in shared]
            for index, holds in enumerate(filter(None, (shared, own))):
                closers = ["dp"] if case.dp > 1 else []
                if len(self.placement[number]) > 1:
                    closers.append(self.twin(number))
                if holds is shared:
                    closers.append("tie")
                count = sum(elements[part] for part in holds)
                unit = 16 * case.dp if self.sharded else 1
                out.append((number, index, tuple(holds), -(-count // unit) * unit, tuple(closers)))
        return out

    def twin(self, stage: int) -> str:
        """Name of the group over the ranks of a stage."""
        return "twin" + "_".join(map(str, self.placement[stage]))

    def _groups(self) -> list[str]:
        groups = {}
        if self.case.dp > 1:
            groups["dp"] = "axes=dp"
        for stage, ranks in enumerate(self.placement):
            if len(ranks) > 1:
                groups[self.twin(stage)] = f"axes=pp pp={','.join(map(str, ranks))}"
        if self.tied_apart:
            groups["tie"] = (
                f"axes=pp pp={','.join(map(str, sorted({*self.placement[0], *self.placement[-1]})))}"
            )
        if self.sharded:
            groups["shards"] = "axes=dp"
        groups["norm"] = "axes=pp scan=up" if self.late else "axes=pp"
        if self.late:
            groups["chk"] = "axes=pp scan=down"
        return [f"group {name} {text}" for name, text in groups.items()]

    def _header(self, ranks: list[Program], needs: list[dict[str, int]]) -> list[str]:
        case, slices = self.case, self.order.num_slices
        first = case.having(schedule="gpipe", pp=1, chunks=1).text().splitlines()
        lines = [next(line for line in first if line.startswith(word)) for word in ("model ", "train ")]
        lines[1] = lines[1].replace("slices=1 ", f"slices={slices} ")
        lines.append("precision param=f32 grad=f32 act=f32 comm=f32 moment=f32")
        lines.append(f"mesh tp=1 cp=1 ep=1 pp={len(ranks)} dp={case.dp} order=tp,cp,ep,pp,dp")
        for number, stage in enumerate(stages_of(balance_layers(case.layers, self.num_stages))):
            layers = f" layers={stage.first}..{stage.last}" if stage.last >= stage.first else ""
            ends = " embedding" * stage.embedding + " head" * stage.head
            lines.append(f"stage {number}{layers}{ends}")
        lines.append(
            "place " + " ".join(f"{s}={','.join(map(str, r))}" for s, r in enumerate(self.placement))
        )
        lines += [f"clock={'free' if self.late else 'barrier'}", "serial=no", "limit=1000000"]
        message = 4 * case.microbatch * (case.seq // slices) * case.hidden
        if needs[0]["params"] == 64:
            message = 64
        for cls in "FB":
            ends_of = sorted({key[1:] for rank in ranks for key in rank.channels if key[0] == cls})
            lines += [f"chan {cls.lower()}{a}_{b} {a}>{b} {cls} depth=0 bytes={message}" for a, b in ends_of]
        lines += self._groups()
        for stage, index, holds, elements, closers in self.buckets():
            shard = " shard=dp" if self.sharded else ""
            reduce = f" reduce={','.join(closers)}" if closers else ""
            lines.append(f"bucket {stage}/{index} holds={','.join(holds)} elements={elements}{shard}{reduce}")
        if self.tied_apart:
            lines.append(f"tie 0/0 {self.num_stages - 1}/0")
        arenas, regions, pools = [], [], []
        for rank, need in zip(ranks, needs, strict=True):
            at = 0
            for name in _REGIONS:
                regions.append(f"region pp={rank.rank} {name} bytes={need[name]} at={at}")
                at += -(-need[name] // 64) * 64
            for letter in "hawgkpqo":
                num = rank.pools[letter].size
                if num:
                    place = 0 if letter == "o" else at
                    pools.append(f"pool pp={rank.rank} {letter} n={num} bytes={need[letter]} at={place}")
                    at += 0 if letter == "o" else num * need[letter]
            arenas.append(f"arena pp={rank.rank} bytes={at}")
        maps = [f"map pp={rank.rank} P{rank.rank}" for rank in ranks]
        return [*lines, *arenas, *regions, *pools, *maps]

    def _write(self, path: Path, ranks: list[Program], needs: list[dict[str, int]]) -> None:
        lines = self._header(ranks, needs)
        for rank in ranks:
            lines += [f"program P{rank.rank}", *rank.lines, "END"]
        body = "".join(f"{line}\n" for line in lines)
        path.write_text(f"exactmap-plan 1.0\nbody sha256={sha256(body.encode()).hexdigest()}\n{body}")
