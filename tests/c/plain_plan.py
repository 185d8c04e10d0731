"""The plainest lowering of an order to a plan: what the engine's tests run before and beside the real one.

Every buffer has a slot of its own for as long as it can, a message is received right before its use and its
send is waited for at the program's end; so any order that respects its data can be lowered and cannot
deadlock. Sizes are asked of the engine.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from hashlib import sha256
from heapq import heappop, heappush
from pathlib import Path

from engine_case import Case

from exactmap.backend_c.run import footprint
from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.order import Order, Work
from exactmap.sim.schedules.partition import balance_layers, stages_of
from exactmap.sim.workload.footprint import stage_footprint

__all__ = ["PlainPlan"]

_REGIONS = ("params", "grads", "moments", "staging", "workspace")
_BACKWARD = {Op.I, Op.B}


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
        ranks = [_Rank(self, rank) for rank in range(self.order.num_ranks)]
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

    def _header(self, ranks: list[_Rank], needs: list[dict[str, int]]) -> list[str]:
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

    def _write(self, path: Path, ranks: list[_Rank], needs: list[dict[str, int]]) -> None:
        lines = self._header(ranks, needs)
        for rank in ranks:
            lines += [f"program P{rank.rank}", *rank.lines, "END"]
        body = "".join(f"{line}\n" for line in lines)
        path.write_text(f"exactmap-plan 1.0\nbody sha256={sha256(body.encode()).hexdigest()}\n{body}")


@dataclass(slots=True)
class _Pool:
    size: int = 0
    ready: list[int] = field(default_factory=list)

    def take(self) -> int:
        if self.ready:
            return heappop(self.ready)
        self.size += 1
        return self.size - 1


class _Rank:
    """One rank's program as it grows."""

    def __init__(self, plan: PlainPlan, rank: int) -> None:
        self.plan, self.order, self.rank = plan, plan.order, rank
        self.lines: list[str] = []
        self.pools = defaultdict(_Pool)
        self.living: dict[tuple[str, object], int] = {}
        self.channels: set[tuple[str, int, int]] = set()
        self.received: dict[tuple[str, int, int], int] = defaultdict(int)
        self.unsent: list[str] = []
        self.copies: list[str] = []
        self.loaded: dict[int, str] = {}
        self.again = {
            int(item)
            for r in range(self.order.num_ranks)
            for work, item in zip(self.order.works(r), self.order.items(self.order.works(r)), strict=True)
            if work.op is Op.RC
        }

    # ---- slots ----

    def begin(self, what: str, key: object) -> str:
        letter = what if len(what) == 1 and what in "awgkpqo" else "h"
        slot = self.pools[letter].take()
        self.living[what, key] = slot
        return f" {letter}{slot}"

    def end(self, what: str, key: object) -> None:
        letter = what if len(what) == 1 and what in "awgkpqo" else "h"
        slot = self.living.pop((what, key), None)
        if slot is not None:
            heappush(self.pools[letter].ready, slot)

    # ---- items ----

    def item(self, work: Work) -> int:
        return (
            work.stage * self.order.num_microbatches + work.microbatch
        ) * self.order.num_slices + work.slice

    def beside(self, work: Work, step: int) -> int:
        return self.item(work._replace(stage=work.stage + step))

    def name(self, item: int) -> str:
        return self.order.name(item)

    def messages(self, cls: str, src: int) -> list[tuple[int, int]]:
        """(item of the user, its rank) of what `src` sends, in order."""
        out = []
        for work in self.order.works(src):
            step = 1 if cls == "F" else -1
            sends = work.op is Op.F if cls == "F" else work.op in _BACKWARD
            if sends and 0 <= work.stage + step < self.order.num_stages:
                user = self.beside(work, step)
                out.append((user, int(self.order.rank_of_item[user])))
        return out

    def receive(self, cls: str, work: Work, producer: int) -> None:
        """Take messages of a channel up to the one that `work` reads."""
        src = int(self.order.rank_of_item[producer])
        if src == self.rank:
            return
        what, op = ("x", "RF") if cls == "F" else ("dy", "RB")
        key = (cls, src, self.rank)
        self.channels.add(key)
        queue = [user for user, rank in self.messages(cls, src) if rank == self.rank]
        while (what, self.item(work)) not in self.living:
            user = queue[self.received[key]]
            self.received[key] += 1
            channel = f"{cls.lower()}{src}_{self.rank}"
            self.lines.append(f"{op} {self.name(user)}@{channel}{self.begin(what, user)}")
            self.lines.append(f"WR {self.name(user)}@{channel}")

    def send(self, cls: str, work: Work, user: int) -> None:
        """Hand an output on, to a rank or to a stage of this one."""
        dst = int(self.order.rank_of_item[user])
        made, used = ("y", "x") if cls == "F" else ("dx", "dy")
        if dst == self.rank:
            self.lines.append(f"L{cls} {self.name(self.item(work))}")
            self.living[used, user] = self.living.pop((made, self.item(work)))
            return
        self.channels.add((cls, self.rank, dst))
        channel = f"{cls.lower()}{self.rank}_{dst}"
        self.lines.append(f"S{cls} {self.name(self.item(work))}@{channel}")
        self.unsent.append(f"WS {self.name(self.item(work))}@{channel}")

    # ---- works ----

    def text(self, work: Work) -> str:
        """The pass with the slots that it names."""
        item, key = self.item(work), (work.stage, work.microbatch)
        last = work.stage == self.order.num_stages - 1
        slots = ""
        if work.op is Op.F:
            slots += "" if last else self.begin("y", item)
            if item not in self.again:
                slots += self.begin("a", item) + self.begin("w", item)
            if self.order.num_slices > 1 and work.slice == 0:
                slots += self.begin("k", key)
        elif work.op is Op.RC:
            slots += self.begin("a", item) + self.begin("w", item)
        elif work.op in _BACKWARD:
            slots += self.begin("dx", item) if work.stage > 0 else ""
            slots += self.begin("g", item) if work.op is Op.I else ""
        return f"{work.op} {self.name(item)}{slots}"

    def finish(self, work: Work) -> None:
        """End what the pass ends, hand on what it made."""
        item, key = self.item(work), (work.stage, work.microbatch)
        if work.op in _BACKWARD:
            self.end("a", item)
            if work.slice == 0:
                self.end("k", key)
        if work.op in {Op.W, Op.B}:
            for what in ("w", "g", "x", "dy"):
                self.end(what, item)
        if work.op is Op.F and work.stage + 1 < self.order.num_stages:
            self.send("F", work, self.beside(work, 1))
        if work.op in _BACKWARD and work.stage > 0:
            self.send("B", work, self.beside(work, -1))

    def wait_copies(self, until: str) -> None:
        """Waits of copies stand in the order of their posts."""
        while until in self.copies:
            wait = self.copies.pop(0)
            self.lines.append(wait)
            op, name = wait.split()
            if op == "WOFF":
                self.end("a", name)
                self.end("w", name)
            else:
                self.end("o", name)

    def copy(self, work: Work) -> None:
        item = self.item(work)
        name = self.name(item)
        if work.op is Op.OFF:
            for what in "aw":
                self.living[what, name] = self.living.pop((what, item))
            self.lines.append(f"OFF {name}{self.begin('o', name)}")
            self.copies.append(f"WOFF {name}")
            self.wait_copies(f"WOFF {name}")
        else:
            self.lines.append(f"LD {name}{self.begin('a', item)}{self.begin('w', item)}")
            self.copies.append(f"WLD {name}")
            self.loaded[item] = f"WLD {name}"

    def braid(self, works: list[Work]) -> None:
        """One work, or several as one."""
        for work in works:
            if work.op is Op.F and work.stage > 0:
                self.receive("F", work, self.beside(work, -1))
            if work.op in _BACKWARD:
                if work.stage + 1 < self.order.num_stages:
                    self.receive("B", work, self.beside(work, 1))
                if self.item(work) in self.loaded:
                    self.wait_copies(self.loaded[self.item(work)])
        texts = [self.text(work) for work in works]
        self.lines.append(texts[0] if works[0].braid < 0 else "FB{" + "|".join(texts) + "}")
        for work in works:
            self.finish(work)

    def lower(self) -> None:
        """The whole program."""
        plan = self.plan
        mine = [b for b in plan.buckets() if self.rank in plan.placement[b[0]]]
        names = [f"{stage}/{index}" for stage, index, *_ in mine]
        works = list(self.order.works(self.rank))
        starts = {work.braid: n for n, work in reversed(list(enumerate(works)))}
        writers = [
            n if work.braid < 0 else starts[work.braid]
            for n, work in enumerate(works)
            if work.op in {Op.W, Op.B}
        ]
        first = writers[0] if writers else len(works)
        bounds = {writers[len(writers) * i // plan.rounds] for i in range(1, plan.rounds)}
        if plan.late:
            self.lines.append("CHK @chk")
        if plan.sharded:
            self.lines += [f"AG {name}@dp{self.begin('p', name)}" for name in names]
            self.lines += [f"WC {name}@dp" for name in names]
        at = 0
        while at < len(works) or first == len(works):
            if at == first:
                self.open(names)
                first = -1
                if at == len(works):
                    break
            if at in bounds:
                self.close(mine)
                self.open(names, again=True)
            if works[at].op in {Op.OFF, Op.LD}:
                self.copy(works[at])
                at += 1
                continue
            number = 1
            while (
                works[at].braid >= 0
                and works[at + number : at + number + 1]
                and (works[at + number].braid == works[at].braid)
            ):
                number += 1
            self.braid(works[at : at + number])
            at += number
        self.lines += self.unsent
        self.close(mine)
        if plan.sharded:
            self.lines += [f"FREE {name}" for name in names]
            self.lines += ["NORM @shards", "WC @shards"]
        self.lines += ["NORM @norm", "WC @norm", *(f"OPT {name}" for name in names)]

    def open(self, names: list[str], *, again: bool = False) -> None:
        """Check the norm of the step before; gradients from zero."""
        if self.plan.late and not again:
            self.lines += ["WC @chk", *(f"PV {name}" for name in names), *(f"UNDO {name}" for name in names)]
        self.lines += [f"ZERO {name}{self.begin('q', name) if self.plan.sharded else ''}" for name in names]

    def close(self, mine: list[tuple[int, int, tuple[str, ...], int, tuple[str, ...]]]) -> None:
        """Sum the gradients."""
        op = "RS" if self.plan.sharded else "AR"
        for word in (op, "WC"):
            for stage, index, _, _, closers in mine:
                self.lines += [f"{word} {stage}/{index}@{group}" for group in closers]
        for stage, index, *_ in mine:
            self.end("q", f"{stage}/{index}")
