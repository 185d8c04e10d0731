"""Fit the constants of the collective model on measured curves, of in-switch reduction on published tables.

Usage: python tests/bench/collectives_fit.py [--write]
Prints each type's fit; `--write` replaces topology/catalog/collective-constants.csv.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from exactmap.topology.collectives.constants import CONSTANTS_FILE, PAIR, RING, LinkConstants
from exactmap.topology.collectives.fit import fit_link, fit_nvls
from exactmap.topology.collectives.model import inside_ns
from exactmap.topology.collectives.operations import Collective
from exactmap.topology.collectives.published import published
from exactmap.topology.curves import Curves, curve_names, find_curves

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "topology" / "catalog" / CONSTANTS_FILE

LINKS: Mapping[str, tuple[tuple[str, ...], float, int, str]] = {
    "NVLink 3": (("A100-80G",), 300e9, 0, "NVIDIA A100 data sheet, half of both directions"),
    "NVLink 4": (("H100", "H200"), 450e9, 16, "NVIDIA H100 data sheet, half of both directions"),
    "NVLink 5": (
        ("B200", "B300", "GB200", "GB300"),
        900e9,
        24,
        "NVIDIA B200 data sheet, half of both directions",
    ),
}
"""Link -> types, rate, channels of in-switch reduction, source of the rate."""
SIBLINGS = {"GB200": "B200", "GB300": "B300"}
BORROWERS = {
    "V100": ("A100-80G", 150e9, "NVIDIA V100 data sheet, half of both directions"),
    "H800": ("H100", 200e9, "400 GB/s in both directions; arXiv:2505.09343"),
}
_TUNER = "NCCL tuner constants (github.com/NVIDIA/nccl src/graph/tuning.cc), over its tree's 5.0 us in LL"
NETWORK = (
    ("ring_ll", 2.7 / 5.0, "recalled", _TUNER),
    ("ring_ll128", 4.0 / 5.0, "recalled", _TUNER),
    ("ring_simple", 14.0 / 5.0, "recalled", _TUNER),
    ("tree_ll", 1.0, "recalled", _TUNER),
    ("tree_ll128", 8.5 / 5.0, "recalled", _TUNER),
    ("tree_simple", 14.0 / 5.0, "recalled", _TUNER),
    ("nvls_tree", 20.9 / 5.0, "recalled", _TUNER),
    ("sharp", 18.0 / 5.0, "recalled", f"{_TUNER}; NVLS over several hosts"),
    (
        "tree_ll_share",
        0.09,
        "derived",
        "35 and 70 GB/s over 4 and more hosts in the same file, of 430 and 720 on Hopper and Blackwell",
    ),
    (
        "tree_chunk_bytes",
        2.0**21,
        "derived",
        "16 channels x 128 KiB; enqueue.cc of NCCL shortens chunks to that on deep trees",
    ),
    ("message_ns", 550.0, "derived", "0.3 to 0.8 us in an interface's transmit path; kentino.com"),
    ("overlap", 4.0, "assumed", "two stages of a pipeline overlap well but not wholly; 1: not at all"),
)
_FITTED = "fitted by tests/bench/collectives_fit.py on nvlink-collectives.csv"
_NVLS = "fitted by tests/bench/collectives_fit.py on published-collectives.csv"


def main() -> int:
    """Fit, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"replace {PATH.relative_to(ROOT)}")
    args = parser.parse_args()
    rows: list[tuple[str, str, float | str, str, str]] = []
    points = [point for point in published() if point.use == "fit"]
    hopper = None
    for link, (names, rate, channels, source) in LINKS.items():
        fitted = fit_link({name: _curves(name) for name in names})
        of_link = [point for point in points if point.gpu in names]
        if channels:
            hopper = fit_nvls(of_link, float(channels), like=hopper)
        for name in names:
            k = fitted[name] if not channels or hopper is None else replace(fitted[name], **hopper)
            _tell(link, k)
            rows += _type_rows(k, rate, source, has_nvls=bool(channels))
    for name, (lender, rate, source) in BORROWERS.items():
        rows.append((name, "link_bytes_per_s", rate, "datasheet", source))
        rows.append(
            (
                name,
                "borrowed_from",
                lender,
                "assumed",
                "no curves of its own: times as there, rates scaled with the link",
            )
        )
    rows += [("network", name, value, confidence, source) for name, value, confidence, source in NETWORK]
    text = _text(rows)
    if args.write:
        PATH.write_text(text, encoding="utf-8")
        print(f"written: {PATH.relative_to(ROOT)}", file=sys.stderr)
    assert curve_names() == {name for names, *_ in LINKS.values() for name in names}
    return 0


def _curves(name: str) -> Curves:
    found = find_curves(name)
    assert found is not None, name
    return found


def _tell(link: str, k: LinkConstants) -> None:
    errors = np.concatenate(
        [
            np.abs(
                inside_ns(k, Collective(key.op), key.num_ranks, np.array(curve.num_bytes, float))
                / np.array(curve.time_ns)
                - 1
            )
            for key, curve in _curves(k.name).by_key.items()
        ]
    )
    print(
        f"{link}  {k.name:9s} {len(errors)} points, the model alone: median {100 * np.median(errors):.1f} %, "
        f"nine of ten within {100 * np.quantile(errors, 0.9):.1f} %"
    )


def _type_rows(
    k: LinkConstants, rate: float, source: str, *, has_nvls: bool
) -> Iterable[tuple[str, str, float | str, str, str]]:
    yield k.name, "link_bytes_per_s", rate, "datasheet", source
    for name in (*RING, "switch_bytes", *PAIR):
        yield k.name, name, float(getattr(k, name)), "derived", _FITTED
    if has_nvls:
        yield k.name, "nvls_base_ns", k.nvls_base_ns, "derived", _NVLS
        yield k.name, "nvls_bytes_per_s", k.nvls_bytes_per_s, "derived", _NVLS
        yield k.name, "nvls_stages", k.nvls_stages, "derived", _NVLS
        yield k.name, "nvls_channels", k.nvls_channels, "datasheet", "NVLS_NCHANNELS in NCCL's nvls.cc"
    yield k.name, "tree_max_domain", 8.0, "derived", "the 1,440 GPUs of published-collectives.csv took a ring"
    if k.name in SIBLINGS:
        yield (
            k.name,
            "siblings",
            SIBLINGS[k.name],
            "assumed",
            "the same link and generation, with 8 ranks measured",
        )


def _text(rows: Iterable[tuple[str, str, float | str, str, str]]) -> str:
    out = io.StringIO()
    out.write(
        "# Constants of exactmap.topology.collectives: times in ns, rates in bytes/s, sizes in bytes. "
        "Meaning: docs/concepts/collectives.md.\n"
    )
    out.write("# Written by `python tests/bench/collectives_fit.py --write`; change that, not this.\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("gpu", "name", "value", "confidence", "source"))
    for gpu, name, value, confidence, source in rows:
        writer.writerow((gpu, name, value if isinstance(value, str) else f"{value:.4g}", confidence, source))
    return out.getvalue()


if __name__ == "__main__":
    sys.exit(main())
