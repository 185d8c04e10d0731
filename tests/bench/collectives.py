"""How well times of collectives are known: measurements left out and predicted, and published results.

Usage: python tests/bench/collectives.py [--record]
Prints the tables; `--record` also writes them into docs/accuracy.md. Ends with 5 if a bar is missed.
(a) Every third size left out, constants fitted without them; thrice, so that each size is left out once.
(b) Each curve (an operation at a number of ranks) left out, constants fitted without it.
    In both nothing of a sibling type is used: its curves are of nearly the same machine.
(c) Published results, none of them in the curves; no constant is fitted on those of 72 and 1,440 GB200.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from collectives_fit import LINKS

from exactmap.sim.report.quantity import show_bytes, show_time
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.topology.collectives import Collective, collective_time
from exactmap.topology.collectives.blend import blended_ns
from exactmap.topology.collectives.constants import LinkConstants
from exactmap.topology.collectives.fit import Fits, fit_link
from exactmap.topology.collectives.published import Published, published
from exactmap.topology.curves import Curve, CurveKey, Curves, find_curves
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import GroupShape

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "accuracy.md"
BEGIN, END = "<!-- written by tests/bench/collectives.py -->", "<!-- end of what it writes -->"
PHASES = 3
CLUSTERS = {
    "V100": "v100-8",
    "A100-80G": "a100-8",
    "H100": "h100-8",
    "H200": "h200-8",
    "H800": "h800-8",
    "B200": "b200-8",
    "GB200": "gb200-nvl72",
}


@dataclass(frozen=True, slots=True)
class Errors:
    """Absolute relative errors of predictions, and the bar that they are held to."""

    name: str
    gpu: str
    values: tuple[float, ...]
    median_bar: float
    tail_bar: float | None = None

    @property
    def median(self) -> float:
        """Half are smaller."""
        return float(np.median(self.values))

    @property
    def tail(self) -> float:
        """19 of 20 are smaller."""
        return float(np.quantile(self.values, 0.95))

    @property
    def holds(self) -> bool:
        """Whether the bar is met."""
        return self.median <= self.median_bar and (self.tail_bar is None or self.tail <= self.tail_bar)


def main() -> int:
    """Leave out, predict, print, record; 5 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the tables to docs/accuracy.md")
    args = parser.parse_args()
    sizes = [errors for names, *_ in LINKS.values() for errors in sizes_left_out(names)]
    curves = [errors for names, *_ in LINKS.values() for errors in curves_left_out(names)]
    results = [(point, *predict(point)) for point in published()]
    large = [_large(results, ranks) for ranks in (72, 1440)]
    text = render(sizes, curves, large, results)
    print(text)
    if args.record:
        record(text)
    return 0 if all(errors.holds for errors in (*sizes, *curves, *large)) else 5


def sizes_left_out(names: Sequence[str]) -> Iterable[Errors]:
    """Every third size of every curve, predicted from the others; a result per phase and type."""
    for phase in range(PHASES):
        kept = {name: _thinned(_curves(name), phase) for name in names}
        constants = fit_link(kept)
        for name in names:
            values: list[float] = []
            for key, curve in _curves(name).by_key.items():
                sizes, times = _thin(curve, phase, kept=False)
                values += _errors(kept[name], constants[name], key, sizes, times)
            yield Errors(f"phase {phase}", name, tuple(values), 0.03, 0.25)


def curves_left_out(names: Sequence[str]) -> Iterable[Errors]:
    """Each curve, predicted from the type's others and constants that never saw it; no sibling helps."""
    fits: Fits = {}
    whole = {name: _curves(name) for name in names}
    # Fits are known by the identity of their curves: those must not go before.
    made: list[Curves] = []
    for name in names:
        values: list[float] = []
        for key, curve in whole[name].by_key.items():
            less = whole[name].without(key)
            made.append(less)
            constants = fit_link({**whole, name: less}, known=fits)
            values += _errors(less, constants[name], key, *map(np.array, curve))
        yield Errors("curves", name, tuple(values), 0.15)


def predict(point: Published) -> tuple[float, str, float, str]:
    """Time of a published result by the algorithm that ran, and by the one that we take."""
    machine = _cluster(point)
    shape = GroupShape(point.num_ranks, point.num_ranks // point.num_domains, point.num_domains)
    if point.num_domains > 1:
        from exactmap.topology.fabric.build import build_fabric

        last = (point.num_domains - 1) * machine.scale_up.domain_size
        tier = build_fabric(machine).tier_between(np.array([0]), np.array([last]))
        shape = replace(shape, fabric_tier=int(tier[0]))
    ran = collective_time(machine, point.op, shape, point.num_bytes, point.algorithm)
    taken = collective_time(machine, point.op, shape, point.num_bytes)
    return ran.time_ns, ran.algorithm.value, taken.time_ns, taken.algorithm.value


def _cluster(point: Published) -> Cluster:
    machine = load_cluster(CLUSTERS[point.gpu])
    width = point.num_ranks // point.num_domains
    domain = width if point.num_domains > 1 else machine.scale_up.domain_size
    return replace(
        machine,
        num_gpus=max(domain * point.num_domains, machine.gpus_per_host),
        gpus_per_host=min(machine.gpus_per_host, domain),
        used_per_domain=domain,
        scale_up=replace(machine.scale_up, domain_size=domain),
        scale_out=replace(machine.scale_out, bytes_per_s=point.nic_gbps * 10**9 // 8),
        fabric=replace(machine.fabric, rails=min(machine.fabric.rails, domain)),
    )


def _curves(name: str) -> Curves:
    found = find_curves(name)
    assert found is not None, name
    return found


def _thin(curve: Curve, phase: int, *, kept: bool) -> tuple[np.ndarray, np.ndarray]:
    chosen = [index for index in range(len(curve.num_bytes)) if (index % PHASES != phase) == kept]
    return np.array(curve.num_bytes, float)[chosen], np.array(curve.time_ns)[chosen]


def _thinned(curves: Curves, phase: int) -> Curves:
    by_key = {}
    for key, curve in curves.by_key.items():
        sizes, times = _thin(curve, phase, kept=True)
        by_key[key] = Curve(tuple(map(int, sizes)), tuple(map(float, times)))
    return Curves(curves.name, curves.release, by_key)


def _errors(
    curves: Curves, k: LinkConstants, key: CurveKey, sizes: np.ndarray, times: np.ndarray
) -> list[float]:
    predicted = blended_ns(curves, k, Collective(key.op), key.num_ranks, sizes.astype(float))
    return [float(error) for error in np.abs(predicted / times - 1.0)]


_Result = tuple[Published, float, str, float, str]


def _large(results: Sequence[_Result], ranks: int) -> Errors:
    values = tuple(
        abs(taken / point.time_ns - 1.0) for point, _, _, taken, _ in results if point.num_ranks == ranks
    )
    return Errors(f"{ranks} ranks", "GB200", values, 0.15)


def render(
    sizes: Sequence[Errors], curves: Sequence[Errors], large: Sequence[Errors], results: Sequence[_Result]
) -> str:
    """The tables as Markdown."""
    lines = [
        "| GPU | (a) sizes left out: median, 95th percentile, by phase | (b) curves left out |",
        "|---|---|---|",
    ]
    for of_curve in curves:
        phases = [errors for errors in sizes if errors.gpu == of_curve.gpu]
        cells = "; ".join(f"{_percent(errors.median)}, {_percent(errors.tail)}" for errors in phases)
        lines.append(f"| {of_curve.gpu} | {cells} | {_percent(of_curve.median)}, {_percent(of_curve.tail)} |")
    lines += [
        "",
        *(
            f"- {errors.gpu}, {errors.name}, {len(errors.values)} points: median {_percent(errors.median)}, "
            f"worst {_percent(max(errors.values))}"
            for errors in large
        ),
        f"- all of them together: median {_percent(float(np.median([v for e in large for v in e.values])))}",
        "",
        "(c) Published results: as it ran, where that is known, and as `exactmap collective` takes it.",
        "",
        "| GPU | operation, ranks (domains) | size | published | as it ran | as we take it |",
        "|---|---|---|---|---|---|",
    ]
    for point, ran, ran_name, taken, taken_name in results:
        what = f"{point.op.value}, {point.num_ranks} ({point.num_domains})"
        lines.append(
            f"| {point.gpu} | {what} | {show_bytes(point.num_bytes)} | {show_time(point.time_ns)} "
            f"| {ran_name}, {100 * (ran / point.time_ns - 1):+.1f} % "
            f"| {taken_name}, {100 * (taken / point.time_ns - 1):+.1f} % |"
        )
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def record(text: str) -> None:
    """Put the tables between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
