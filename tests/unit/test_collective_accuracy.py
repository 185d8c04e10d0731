"""The model of collectives against what it was not shown; all of it: tests/bench/collectives.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.topology.collectives import Collective
from exactmap.topology.collectives.blend import blended_ns
from exactmap.topology.collectives.constants import PAIR, RING, find_constants, link_constants
from exactmap.topology.collectives.fit import fit_link
from exactmap.topology.collectives.model import inside_ns
from exactmap.topology.collectives.published import published
from exactmap.topology.curves import Curve, Curves, curve_names, find_curves


def _curves(name: str) -> Curves:
    curves = find_curves(name)
    assert curves is not None
    return curves


@pytest.mark.parametrize("phase", range(3))
@pytest.mark.parametrize("name", sorted(curve_names()))
def test_every_third_size_left_out_is_predicted(name: str, phase: int) -> None:
    """Median error at most 3 %, 19 of 20 within 25 %."""
    k = find_constants(name)
    assert k is not None
    errors: list[float] = []
    for key, curve in _curves(name).by_key.items():
        kept = [index for index in range(len(curve.num_bytes)) if index % 3 != phase]
        left = [index for index in range(len(curve.num_bytes)) if index % 3 == phase]
        thin = Curve(tuple(curve.num_bytes[i] for i in kept), tuple(curve.time_ns[i] for i in kept))
        sizes = np.array([float(curve.num_bytes[i]) for i in left])
        found = blended_ns(Curves(name, "", {key: thin}), k, Collective(key.op), key.num_ranks, sizes)
        errors += np.abs(found / np.array([curve.time_ns[i] for i in left]) - 1).tolist()

    assert np.median(errors) <= 0.03
    assert np.quantile(errors, 0.95) <= 0.25


@pytest.mark.parametrize("name", sorted(curve_names()))
def test_the_model_alone_is_near_all_points(name: str) -> None:
    """No curve, only the type's sixteen constants: median at most 6 %."""
    k = find_constants(name)
    assert k is not None
    errors = np.concatenate(
        [
            np.abs(
                inside_ns(k, Collective(key.op), key.num_ranks, np.array(curve.num_bytes, float))
                / np.array(curve.time_ns)
                - 1
            )
            for key, curve in _curves(name).by_key.items()
        ]
    )

    assert len(errors) in {168, 252}
    assert np.median(errors) <= 0.06


def test_a_fit_finds_the_constants_that_made_the_data() -> None:
    """Times computed from known constants give them back, from another start."""
    truth = find_constants("B200")
    assert truth is not None
    made = {
        key: Curve(
            curve.num_bytes,
            tuple(
                inside_ns(truth, Collective(key.op), key.num_ranks, np.array(curve.num_bytes, float)).tolist()
            ),
        )
        for key, curve in _curves("B200").by_key.items()
    }

    fitted = fit_link({"B200": Curves("B200", "", made)})["B200"]

    assert fitted.base_ns == pytest.approx(truth.base_ns, rel=0.05)
    assert fitted.simple_bytes_per_s == pytest.approx(truth.simple_bytes_per_s, rel=0.05)
    assert fitted.pair_bytes_per_s == pytest.approx(truth.pair_bytes_per_s, rel=0.1)
    assert fitted.switch_bytes == pytest.approx(truth.switch_bytes, rel=0.1)


def test_the_constants_file_is_what_the_fit_gives() -> None:
    """`tests/bench/collectives_fit.py --write` wrote it: A100, the one type on its link, fitted again."""
    stored = find_constants("A100-80G")
    assert stored is not None
    fitted = fit_link({"A100-80G": _curves("A100-80G")})["A100-80G"]

    for name in (*RING, "switch_bytes", *PAIR):
        assert getattr(fitted, name) == pytest.approx(getattr(stored, name), rel=2e-3), name


def test_an_unknown_type_has_latency_and_rate_alone() -> None:
    """Half a second at 7 GB/s, wherever the protocols of others change."""
    k = link_constants(load_cluster("cpu-host"))

    assert inside_ns(k, Collective.ALL_GATHER, 2, np.array([7e9]))[0] == pytest.approx(2000 + 0.5e9)


def test_published_results_are_what_their_sources_say() -> None:
    """Each has a source, and no size or rank is out of proportion."""
    points = published()

    assert len(points) > 40
    assert {point.use for point in points} == {"check", "fit"}
    assert not [point for point in points if point.use == "fit" and point.num_ranks in {72, 1440}]
    for point in points:
        assert point.source
        assert point.num_ranks % point.num_domains == 0
        assert point.num_bytes * 1e9 / point.time_ns > 2e10 or point.num_bytes < 2**24


def test_scaling_keeps_times() -> None:
    """Half of the link: half of the rates."""
    k = find_constants("H100")
    assert k is not None
    half = k.scaled("half", 0.5)

    assert half.base_ns == k.base_ns
    assert half.simple_bytes_per_s == 0.5 * k.simple_bytes_per_s
    assert replace(half, confidence=k.confidence).scaled("whole", 2.0).nvls_bytes_per_s == k.nvls_bytes_per_s
