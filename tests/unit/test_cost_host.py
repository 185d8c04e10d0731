"""Plans on a measured host: passes looked up or put together, hand-overs, the norm, sums over replicas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.host import (
    AllReduceTime,
    BytesTime,
    ElementsTime,
    HandOver,
    HostFacts,
    HostProfile,
    PassSample,
    read_host_profile,
)
from exactmap.sim.cost.price_plan import price_plan
from exactmap.sim.cost.profile import ChannelNs, Mover
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.workload.presets import find_preset


def sample(part: str, step: str, seq: int, microbatch: int, ns: int, hidden: int = 128) -> PassSample:
    return PassSample(
        part=part,  # type: ignore[arg-type]
        step=step,  # type: ignore[arg-type]
        kind="llama",
        hidden=hidden,
        heads=4,
        kv_heads=2,
        head_dim=32,
        ffn=384,
        vocab=259,
        seq=seq,
        microbatch=microbatch,
        ns=ns,
    )


HOST = HostProfile(
    host=HostFacts(cpu="two cores", num_cores=2, blas="a BLAS", engine="1.0"),
    ranks_at_once=2,
    passes=(
        *(sample("layer", step, 128, size, 1_000_000 * size) for step in "FIW" for size in (1, 4)),
        *(sample(part, step, 128, 2, 100_000) for part in ("embedding", "head") for step in "FW"),
        sample("head", "I", 128, 2, 10_000),
    ),
    optimizer=(ElementsTime(elements=1000, ns=2000), ElementsTime(elements=100_000, ns=200_000)),
    norm=(ElementsTime(elements=1000, ns=300),),
    copies=(BytesTime(bytes=65536, ns=10_000), BytesTime(bytes=131072, ns=20_000)),
    awake=HandOver(post_ns=40, wake_ns=100),
    asleep=HandOver(post_ns=8040, wake_ns=20_100),
    all_reduce=(AllReduceTime(ranks=2, bytes=4096, ns=5000),),
    instruction_ns=50,
)


def test_a_measured_host_prices_a_plan_from_its_own_passes() -> None:
    """Two layers of 1 ms a sequence, two sequences, the embedding, one instruction; the rest by size."""
    plan = build_plan(
        find_preset("byte-llama"), schedule="zb-h1", pp=2, num_microbatches=4, seq=128, microbatch=2, dp=2
    )

    profile = price_plan(plan, HOST)

    assert profile.mover is Mover.INLINE
    assert profile.work("F", 0) == 2 * 2_000_000 + 100_000 + 50
    assert profile.work("I", 0) == 2 * 2_000_000 + 50
    assert profile.work("B", 1) == 4 * 2_000_000 + 110_000 + 50
    assert profile.transfer("f0_1") == ChannelNs(20_000, 100 + 20_000 // 4, 0)  # one of four finds a sleeper
    assert profile.post("SF") == profile.post("SB") == 40 + 8000 // 4
    bucket = plan.buckets[0]
    assert profile.bucket("OPT", 0, 0) == pytest.approx(50 + 2 * bucket.elements, abs=1)
    assert profile.group("dp", "AR", 0, 0) == pytest.approx(bucket.elements * 4 / 4096 * 5000, abs=1)


def test_off_the_grid_a_pass_runs_at_the_rate_of_passes_of_its_size() -> None:
    """Twice the width of ffn alone is more work and takes more time, in proportion to FLOPs."""
    wide = replace(find_preset("byte-llama"), ffn=768)
    plan = build_plan(wide, schedule="1f1b", pp=2, num_microbatches=2, seq=128, microbatch=2)

    profile = price_plan(plan, HOST)

    assert 2 * 2_000_000 < profile.work("F", 0) < 2 * 2 * 2_000_000


def test_hardware_profiles_survive_their_file_and_are_read_strictly(tmp_path: Path) -> None:
    """Unknown keys, wrong types and absent files are refused with their field."""
    path = tmp_path / "hardware-profile.json"
    path.write_text(HOST.to_json(), encoding="utf-8")
    assert read_host_profile(path) == HOST

    path.write_text(HOST.to_json().replace('"wake_ns": 100', '"wake_ns": 7.5', 1), encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"awake\.wake_ns"):
        read_host_profile(path)
    path.write_text(HOST.to_json().replace('"instruction_ns"', '"instr_ns"', 1), encoding="utf-8")
    with pytest.raises(InvalidInputError, match="instr_ns"):
        read_host_profile(path)
    with pytest.raises(InvalidInputError, match="hint: exactmap calibrate writes one"):
        read_host_profile(tmp_path / "nowhere.json")


def test_a_host_profile_knows_no_tensor_parallelism() -> None:
    """It says so instead of pricing something else."""
    plan = build_plan(find_preset("byte-llama"), schedule="1f1b", pp=1, tp=2, num_microbatches=1, seq=128)

    with pytest.raises(InvalidInputError, match="pipeline and data parallelism: got tp=2"):
        price_plan(plan, HOST)


def test_chunks_share_a_channel_so_fewer_of_its_messages_meet_a_sleeper() -> None:
    """Interleaved over two ranks, f0_1 carries stages 0 to 1 and 2 to 3: twice the microbatches."""
    plan = build_plan(
        find_preset("byte-llama"),
        schedule="interleaved-1f1b",
        pp=2,
        chunks=2,
        num_microbatches=2,
        seq=128,
        microbatch=2,
    )

    profile = price_plan(plan, HOST)

    assert profile.transfer("f0_1").lat_ns == 100 + 20_000 // 4
    assert profile.transfer("f1_0").lat_ns == 100 + 20_000 // 2
    assert profile.post("SF") == 40 + 8000 // 2


def test_the_norm_waits_for_the_rank_with_most_parameters() -> None:
    """All meet, then each sums the squares of all its buckets."""
    plan = build_plan(
        find_preset("byte-llama"), schedule="1f1b", pp=2, num_microbatches=4, seq=128, layers=(3, 1)
    )
    most = sum(bucket.elements for bucket in plan.buckets if bucket.stage == 0)

    profile = price_plan(plan, HOST)

    assert most > sum(bucket.elements for bucket in plan.buckets if bucket.stage == 1)
    assert profile.group("norm", "NORM") == pytest.approx(8040 + 20_100 + 0.3 * most, abs=1)


def test_measurements_of_one_shape_in_two_models_are_one() -> None:
    """Layers of equal width from models of unequal vocabulary: their mean, not a division by zero."""
    twin = sample("layer", "F", 128, 4, 6_000_000).model_copy(update={"vocab": 5000})
    host = HOST.model_copy(update={"passes": (*HOST.passes, twin)})
    plan = build_plan(
        find_preset("byte-llama"), schedule="1f1b", pp=2, num_microbatches=2, seq=128, microbatch=4
    )

    profile = price_plan(plan, host)

    assert profile.work("F", 0) == 2 * 5_000_000 + 200_000 + 50


def test_a_slice_takes_its_share_of_a_pass_and_an_instruction_of_its_own() -> None:
    """Four slices: a quarter of the work each, and four messages on a channel for each, a quarter as long."""
    whole, sliced = (
        price_plan(
            build_plan(
                find_preset("byte-llama"),
                schedule="seq-1f1b",
                pp=2,
                num_microbatches=4,
                seq=128,
                microbatch=2,
                slices=slices,
            ),
            HOST,
        )
        for slices in (1, 4)
    )

    assert sliced.work("F", 0) == 50 + round((whole.work("F", 0) - 50) / 4)
    assert 4 * sliced.transfer("f0_1").wire_ns == whole.transfer("f0_1").wire_ns
    assert sliced.transfer("f0_1").lat_ns == 100 + round(20_000 / 16)


def test_a_stash_goes_to_the_host_at_the_rate_of_copies() -> None:
    plan = build_plan(
        find_preset("byte-llama"), schedule="1f1b-offload", pp=3, num_microbatches=8, seq=128, microbatch=2
    )
    stash = next(pool.bytes for pool in plan.pools if pool.letter == "o")

    profile = price_plan(plan, HOST)

    assert profile.copy("OFF", 0) == profile.copy("LD", 0) == round(stash * 20_000 / 131_072)


def test_sharded_buckets_are_gathered_summed_and_stepped_by_shares() -> None:
    whole, sharded = (
        price_plan(
            build_plan(
                find_preset("byte-llama"),
                schedule="1f1b",
                pp=1,
                num_microbatches=2,
                seq=128,
                microbatch=2,
                dp=2,
                shard_params=shard,
            ),
            HOST,
        )
        for shard in (False, True)
    )

    summed_ns = whole.group("dp", "AR", 0, 0)
    assert sharded.group("dp", "RS", 0, 0) == pytest.approx(summed_ns / 2, rel=1e-3)
    assert sharded.group("dp", "AG", 0, 0) == pytest.approx(summed_ns / 2, rel=1e-3)
    assert sharded.bucket("OPT", 0, 0) == pytest.approx(whole.bucket("OPT", 0, 0) / 2, rel=1e-3)
