"""The program of one rank in the plainest lowering (`plain_plan`)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.order import Work

if TYPE_CHECKING:
    from plain_plan import PlainPlan

__all__ = ["Program"]

_BACKWARD = {Op.I, Op.B}


@dataclass(slots=True)
class _Pool:
    size: int = 0
    ready: list[int] = field(default_factory=list)

    def take(self) -> int:
        if self.ready:
            return heappop(self.ready)
        self.size += 1
        return self.size - 1


class Program:
    """One rank's program as it grows: `lines`, without its END."""

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
