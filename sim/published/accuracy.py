"""Published rows predicted and judged: by set, GPU type, kind of model; fitted and held-out apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain

from exactmap.errors import ExactmapError
from exactmap.sim.published.b200_rows import b200_rows
from exactmap.sim.published.row import Row, may_fit, published_rows
from exactmap.sim.published.setup_of import setup_of
from exactmap.sim.published.statistics import Case, ErrorStatistics, Ranking, error_statistics, ranking
from exactmap.sim.published.zero_bubble import SCHEDULES, predict_throughput, throughputs
from exactmap.sim.step.predict import predict_step

__all__ = ["Accuracy", "Judged", "Refused", "judge_published", "published_and_b200"]

_REQUIREMENTS = ("korthikanti_t5",)
_GRIDS = ("vtrain_multi", "vtrain_single")


@dataclass(frozen=True, slots=True)
class Judged:
    """A predicted row: its case, where it belongs, and whether constants were fitted on it."""

    case: Case
    set_name: str
    gpu: str
    kind: str
    fitted: bool
    group: str
    memory: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A row with a result that is not predicted, and why."""

    id: str
    set_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Everything that was judged."""

    rows: tuple[Judged, ...]
    refused: tuple[Refused, ...]

    def held_out(self) -> tuple[Judged, ...]:
        """Rows that no constant was fitted on."""
        return tuple(row for row in self.rows if not row.fitted)

    @staticmethod
    def by(rows: Iterable[Judged], key: Callable[[Judged], str]) -> dict[str, ErrorStatistics]:
        """Statistics of parts of some rows."""
        parts: defaultdict[str, list[Case]] = defaultdict(list)
        for row in rows:
            parts[key(row)].append(row.case)
        return {name: error_statistics(cases) for name, cases in parts.items()}

    def grids(self) -> dict[str, Ranking]:
        """Regret and Kendall's tau on the grids of layouts, all rows."""
        out = {}
        for name in _GRIDS:
            groups: defaultdict[str, list[Case]] = defaultdict(list)
            for row in self.rows:
                if row.set_name == name:
                    groups[row.group].append(row.case)
            out[name] = ranking(groups.values())
        return out

    def share_predicted(self) -> dict[str, float]:
        """Share of each set's rows with a step time that are predicted."""
        have: defaultdict[str, int] = defaultdict(int)
        lack: defaultdict[str, int] = defaultdict(int)
        for row in self.rows:
            have[row.set_name] += 1
        for refused in self.refused:
            lack[refused.set_name] += 1
        return {name: have[name] / (have[name] + lack[name]) for name in sorted({*have, *lack})}

    def to_dict(self) -> dict[str, object]:
        """Statistics as plain data."""
        held = self.held_out()

        def table(rows: Sequence[Judged], key: Callable[[Judged], str]) -> dict[str, object]:
            return {name: asdict(found) for name, found in sorted(self.by(rows, key).items())}

        return {
            "schema_version": 1,
            "kind": "accuracy",
            "held_out": {
                "set": table(held, lambda row: row.set_name),
                "gpu": table(held, lambda row: row.gpu),
                "gpu_and_kind": table(held, lambda row: f"{row.gpu} {row.kind}"),
            },
            "fitted": {"set": table([row for row in self.rows if row.fitted], lambda row: row.set_name)},
            "grids": {name: asdict(found) for name, found in self.grids().items()},
            "refused": [asdict(refused) for refused in self.refused],
            "predicted_ids": sorted(row.case.id for row in self.rows),
        }


def published_and_b200() -> Iterator[Row]:
    """Yield all rows of runs."""
    return chain(published_rows(), b200_rows())


def judge_published(rows: Iterable[Row] | None = None) -> Accuracy:
    """Predict every row with a step time and compare; the zero-bubble throughputs with them."""
    judged: list[Judged] = []
    refused: list[Refused] = []
    for row in published_and_b200() if rows is None else rows:
        if not row["step_time_s"]:
            continue
        try:
            prediction = predict_step(setup_of(row))
        except ExactmapError as error:
            refused.append(Refused(row["id"], row["set"], " ".join(str(error).split())))
            continue
        case = Case(
            row["id"],
            float(row["step_time_s"]),
            prediction.step_ns / 1e9,
            prediction.low_ns / 1e9,
            prediction.high_ns / 1e9,
        )
        memory = None
        if row["mem_gib"] and prediction.memory is not None:
            # The paper of these rows computes what a model requires; the others read an allocator.
            required = row["set"] in _REQUIREMENTS
            found = prediction.memory.requirement_bytes if required else prediction.memory.peak_bytes
            memory = (float(row["mem_gib"]), found / 2**30)
        group = "/".join(row[column] for column in ("model", "n_gpus", "gbs"))
        kind = "experts" if row["n_experts"] else "dense"
        judged.append(Judged(case, row["set"], row["gpu"], kind, may_fit(row), group, memory))
    if rows is None:
        judged += _zero_bubble()
    return Accuracy(tuple(judged), tuple(refused))


def _zero_bubble() -> Iterator[Judged]:
    for case in throughputs():
        for schedule in SCHEDULES:
            name = f"{case.id}-{schedule}"
            fitted = may_fit(Row({"id": name, "set": "zero_bubble"}))
            predicted = predict_throughput(case, schedule)
            measured = case.measured[schedule]
            # Samples a second: the interval is that of a step on the same GPU, turned round.
            found = Case(name, measured, predicted, predicted / 1.1, predicted * 1.1)
            yield Judged(found, "zero_bubble", "A100-80G", "dense", fitted, case.id)
