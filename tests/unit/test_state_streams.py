"""Streams of components: nobody's draws depend on anybody else, or on the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.scenario.state_section import default_state
from exactmap.topology.state.cluster_state import build_state
from exactmap.topology.state.components import Component, ComponentKind
from exactmap.topology.state.factors import ONE, factor_of_rate, factor_table, scale
from exactmap.topology.state.leaves import leaves_of
from exactmap.topology.state.spec import HOMOGENEOUS, StateSpec, Straggler
from exactmap.topology.state.streams import Stream, draws16, stream_keys, uniforms, words


def splitmix(state: int) -> int:
    """One output of the generator as its authors publish it, in Python's own integers."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_words_are_those_of_splitmix64() -> None:
    """The first outputs for state 1234567, as published with the generator's reference code."""
    keys = np.array([1234567], dtype=np.uint64)

    assert words(keys, 0, 3)[:, 0].tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]
    assert words(keys, 5, 7)[:, 0].tolist() == [
        splitmix((1234567 + n * 0x9E3779B97F4A7C15) % 2**64) for n in (5, 6)
    ]


def test_a_key_is_the_chain_of_its_parts() -> None:
    """By hand: seed, kind, GPU 5, step 4. Results that users keep must not change with a version."""
    key = 0
    for part in (7, int(Stream.GPU_WORK), 5, 4):
        key = splitmix((key * 31 + part) % 2**64)

    assert stream_keys(7, Stream.GPU_WORK, np.array([5]), 4).tolist() == [key]
    assert key == 15468144609268316535


def test_a_draw_of_16_bits_is_a_quarter_of_its_word() -> None:
    keys = stream_keys(3, Stream.MESSAGE, np.arange(5), 7)
    word = int(words(keys, 2, 3)[0, 4])

    assert draws16(keys, 2, 3)[0, 4].tolist() == [word >> 16 * place & 0xFFFF for place in range(4)]


def test_streams_differ_by_every_part_of_their_key() -> None:
    ids = np.arange(1000)
    sets = [
        stream_keys(seed, stream, ids, step)
        for seed in (1, 2)
        for stream in (Stream.GPU_WORK, Stream.MESSAGE)
        for step in (0, 1)
    ]

    assert len(set(np.concatenate(sets).tolist())) == 8 * 1000


def test_neighbouring_streams_are_not_correlated() -> None:
    draws = uniforms(stream_keys(1, Stream.GPU_WORK, np.arange(2000), 0), 0, 50)

    along = np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]
    down = np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]
    assert abs(along) < 0.01
    assert abs(down) < 0.01
    assert abs(draws.mean() - 0.5) < 0.005
    assert abs(draws.var() - 1 / 12) < 0.002


def test_a_larger_cluster_leaves_the_draws_of_the_smaller_alone() -> None:
    """Adding a rack changes no factor of the GPUs, hosts and interfaces that were there."""
    spec = replace(default_state()[0], seed=11)
    small, large = (
        build_state(cluster, spec, leaves_of(cluster))
        for cluster in (replace(load_cluster("gb300-nvl72"), num_gpus=num) for num in (4608, 4680))
    )

    assert small.gpu.tolist() == large.gpu[:4608].tolist()
    assert small.host.tolist() == large.host[:1152].tolist()
    assert small.interface.tolist() == large.interface[:4608].tolist()
    gpus = np.arange(4608)
    assert small.work_factor(gpus, 3).tolist() == large.work_factor(gpus, 3).tolist()


def test_the_interpreters_hash_seed_changes_nothing() -> None:
    script = (
        "from dataclasses import replace; import hashlib\n"
        "from exactmap.sim.scenario.cluster_file import load_cluster\n"
        "from exactmap.sim.scenario.state_section import default_state\n"
        "from exactmap.topology.state.cluster_state import build_state\n"
        "from exactmap.topology.state.leaves import leaves_of\n"
        "cluster = replace(load_cluster('gb300-nvl72'), num_gpus=720)\n"
        "state = build_state(cluster, default_state()[0], leaves_of(cluster))\n"
        "parts = (state.gpu, state.host, state.interface)\n"
        "print(hashlib.sha256(b''.join(part.tobytes() for part in parts)).hexdigest())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }

    assert len(outputs) == 1


@pytest.mark.parametrize("variation", [0.002, 0.02, 0.3, 1.0])
def test_a_table_of_factors_has_its_mean_and_variation(variation: float) -> None:
    table = factor_table(variation) / ONE

    assert abs(table.mean() - 1) < 1e-6
    assert abs(table.std() / variation - 1) < 0.03  # the cut at 4.2 deviations takes most from wide ones
    assert table.min() > 0
    assert (np.diff(factor_table(variation)) >= 0).all()


def test_a_factor_of_one_changes_no_time() -> None:
    times = np.array([0, 1, 999_999_999_999])

    assert scale(times, ONE).tolist() == times.tolist()
    assert set(factor_table(0.0).tolist()) == {ONE}


def test_a_homogeneous_state_has_no_factors() -> None:
    cluster = load_cluster("gb300-nvl72")
    state = build_state(cluster, HOMOGENEOUS, leaves_of(cluster))

    assert {*state.gpu.tolist(), *state.host.tolist(), *state.rack.tolist(), *state.interface.tolist()} == {
        ONE
    }
    assert not HOMOGENEOUS.has_jitter


def test_rates_multiply_and_healing_takes_them_away() -> None:
    cluster = replace(load_cluster("gb300-nvl72"), num_gpus=144)
    stragglers = (
        Straggler(ComponentKind.RACK, ((1, 1),), 0.5),
        Straggler(ComponentKind.HOST, ((18, 18),), 0.5),
        Straggler(ComponentKind.GPU, ((72, 73),), 0.5),
    )
    state = build_state(cluster, StateSpec(stragglers=stragglers), leaves_of(cluster))
    gpus = np.array([0, 72, 75, 76])

    assert (state.work_factor(gpus, 0) / ONE).tolist() == [1, 8, 4, 2]
    rack, gpu = Component(ComponentKind.RACK, 1), Component(ComponentKind.GPU, 72)
    assert (state.healed([rack, gpu]).work_factor(gpus, 0) / ONE).tolist() == [1, 2, 2, 1]


def test_uplinks_slow_what_does_not_fit() -> None:
    """72 uplinks of which 36 are lost carry half: traffic that needs 93 % takes 1.86 times as long."""
    cluster = replace(load_cluster("gb300-nvl72"), num_gpus=4608)
    leaves = leaves_of(cluster)
    lost = Straggler(ComponentKind.LEAF, ((5, 5),), lost_uplinks=36)
    state = build_state(cluster, StateSpec(stragglers=(lost,)), leaves)
    inside, outside = int(np.flatnonzero(leaves.leaf == 5)[0]), int(np.flatnonzero(leaves.leaf == 6)[0])
    gpus = np.array([inside, outside])

    assert leaves.num_uplinks[5] == 72
    assert np.allclose(state.uplink_factor(gpus, 0.93) / ONE, [1.86, 1.0], atol=1e-6)
    assert (state.uplink_factor(gpus, 0.4) / ONE).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("straggler", "what"),
    [
        (Straggler(ComponentKind.GPU, ((72, 72),), 0.5), "no such gpu: got 72, expected 0 to 71"),
        (Straggler(ComponentKind.RACK, ((0, 1),), 0.5), "no such rack: got 0..1, expected 0 to 0"),
        (Straggler(ComponentKind.LEAF, ((0, 0),), lost_uplinks=1), "the leaf has no uplinks"),
    ],
)
def test_components_that_do_not_exist_are_refused(straggler: Straggler, what: str) -> None:
    cluster = load_cluster("gb300-nvl72")

    with pytest.raises(InvalidInputError, match=what):
        build_state(cluster, StateSpec(stragglers=(straggler,)), leaves_of(cluster))


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"a rate is out of range.*got 0"):
        Straggler(ComponentKind.GPU, ((0, 0),), 0.0)


def test_rates_are_exact_where_they_can_be() -> None:
    assert factor_of_rate(0.5) == 2 * ONE
    assert scale(np.array([1000]), factor_of_rate(0.8)).tolist() == [1250]
