"""Cost: kernels at their measured rates, stages by roofline, profiles that lose nothing in their files."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.efficiency import efficiency_names, find_efficiency
from exactmap.sim.cost.formats import find_formats, formats_of_plan
from exactmap.sim.cost.price_plan import price_plan
from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.cost.stages import price_stages, stage_time_ns
from exactmap.sim.engine.durations import resolve
from exactmap.sim.engine.replay import replay
from exactmap.sim.plan.plan import Precision
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.workload.model import StageShape
from exactmap.sim.workload.operators import Pass, model_flop
from exactmap.sim.workload.presets import find_preset
from exactmap.topology.mapping import Mesh

H100 = load_cluster("h100-8")
BF16 = find_formats("bf16")


@pytest.mark.parametrize(
    ("gpu", "shape", "teraflops"),
    [
        ("H100", (8192, 8192, 8192), 723),
        ("H100", (2048, 2048, 2048), 700),
        ("GB300", (16384, 16384, 16384), 1897),
        ("A100-80G", (128, 4096, 4096), 116),
    ],
)
def test_measured_products_are_met(gpu: str, shape: tuple[int, int, int], teraflops: float) -> None:
    """Median rates of aiconfigurator's tables, at points of the grid."""
    rate = find_efficiency(gpu).gemm_flop_per_s("bf16", 1e16, *shape)

    assert rate / 1e12 == pytest.approx(teraflops, rel=0.01)


@pytest.mark.parametrize(
    ("gpu", "shape", "teraflops"),
    [
        ("H100", (4096, 4096, 4096), 770),
        ("GB300", (4096, 4096, 4096), 1831),
        ("GB300", (1024, 4096, 4096), 1620),
    ],
)
def test_products_between_the_points_are_near_their_measurement(
    gpu: str, shape: tuple[int, int, int], teraflops: float
) -> None:
    """These were left out of the table."""
    rate = find_efficiency(gpu).gemm_flop_per_s("bf16", 1e16, *shape)

    assert rate / 1e12 == pytest.approx(teraflops, rel=0.15)


@pytest.mark.parametrize("gpu", sorted(efficiency_names()))
def test_rates_never_exceed_the_peak_nor_grow_beyond_the_table(gpu: str) -> None:
    """Tiny and huge shapes stay within bounds, and smaller products are no more efficient."""
    efficiency = find_efficiency(gpu)

    tiny, small, huge = (
        efficiency.gemm_flop_per_s("bf16", 1e15, *shape)
        for shape in ((1, 64, 64), (128, 1024, 1024), (10**6, 10**6, 10**6))
    )

    assert 0 < tiny <= small <= 1e15
    assert 0.1e15 < huge <= 1e15 or gpu == "A100-80G"
    forward = efficiency.attention_flop_per_s(1e15, 32, 8192, backward=False)
    assert efficiency.attention_flop_per_s(1e15, 32, 8192, backward=True) == pytest.approx(0.7 * forward)


def test_a_layer_runs_near_the_rate_of_its_products() -> None:
    """GPT-3 175B, tp 4, H100, BF16: NeMo reaches 48 % of peak in whole steps, a stage alone more."""
    model = find_preset("gpt3-175b")
    mesh = Mesh(tp=4)
    work = price_stages(
        model, [StageShape(model.layers, embedding=True, head=True)], 1, 2048, mesh, H100, BF16
    )

    total_s = sum(work.values()) / 1e9
    utilisation = model_flop(model, 2048, 1) / (total_s * 4 * H100.gpu.peak("bf16"))

    assert 0.48 < utilisation < 0.56


def test_stages_are_sums_of_their_parts() -> None:
    """Twice the layers take twice the time; the embedding and the head come on top."""
    model = find_preset("llama3-8b")

    def time_ns(stage: StageShape) -> int:
        return stage_time_ns(model, stage, Pass.F, 1, 4096, Mesh(), H100, BF16)

    assert time_ns(StageShape(8)) == pytest.approx(2 * time_ns(StageShape(4)), abs=2)
    assert time_ns(StageShape(4, head=True)) > time_ns(StageShape(4, embedding=True)) > time_ns(StageShape(4))


def test_tensor_parallelism_divides_compute_and_adds_communication() -> None:
    """Two ranks take more than half, and less than all, of one rank's time."""
    model, stage = find_preset("llama3-8b"), StageShape(8)

    one, two = (stage_time_ns(model, stage, Pass.F, 1, 8192, Mesh(tp=tp), H100, BF16) for tp in (1, 2))

    assert one / 2 < two < one


def test_a_missing_format_is_refused() -> None:
    """An A100 has no fp8 products."""
    with pytest.raises(InvalidInputError, match="A100-80G has no fp8 arithmetic"):
        price_stages(
            find_preset("gpt2"), [StageShape(1)], 1, 1024, Mesh(), load_cluster("a100-8"), find_formats("fp8")
        )


def test_a_plan_is_priced_whole() -> None:
    """Each stage, channel, bucket and group has its duration; a slow network changes what crosses it."""
    precision = Precision(param="bf16", grad="f32", act="bf16", comm="f32", moment="f32")
    cluster = replace(H100, num_gpus=64)
    plan = build_plan(
        find_preset("llama3-8b"),
        schedule="1f1b",
        pp=4,
        tp=8,
        dp=2,
        num_microbatches=4,
        seq=4096,
        precision=precision,
    )

    profile = price_plan(plan, cluster)
    slow = price_plan(
        plan,
        replace(
            cluster, scale_out=replace(cluster.scale_out, bytes_per_s=cluster.scale_out.bytes_per_s // 2)
        ),
    )

    assert profile.mover is Mover.ENGINE
    assert all(profile.work("B", stage) > profile.work("F", stage) > 0 for stage in range(4))
    for channel in plan.channels:
        assert slow.transfer(channel.name).wire_ns == pytest.approx(
            2 * profile.transfer(channel.name).wire_ns, abs=1
        )
    for bucket in plan.buckets:
        assert profile.bucket("OPT", bucket.stage, bucket.index) > 0
        for group in bucket.reduce:
            fast_ns = profile.group(group, "AR", bucket.stage, bucket.index)
            assert 0 < fast_ns < slow.group(group, "AR", bucket.stage, bucket.index)
    assert slow.work_ns == profile.work_ns


@pytest.mark.parametrize(
    ("name", "off_rate", "load_rate"),
    [("h100-8", 52e9, 52e9), ("gb200-nvl72", 678e9 / 4, 678e9 / 4), ("a100-8", 25e9, 25e9)],
)
def test_stashes_are_copied_over_the_host_link(name: str, off_rate: float, load_rate: float) -> None:
    """PCIe bounds a DGX; on a Grace tray four GPUs that copy at once share the memory of two CPUs."""
    cluster = replace(load_cluster(name), num_gpus=72)
    plan = build_plan(
        find_preset("llama3-8b"),
        schedule="1f1b-offload",
        pp=4,
        tp=2,
        num_microbatches=8,
        seq=4096,
        precision=Precision(param="bf16", grad="f32", act="bf16", comm="f32", moment="f32"),
    )
    stash = next(pool.bytes for pool in plan.pools if pool.letter == "o")

    profile = price_plan(plan, cluster)
    trace = replay(plan, resolve(plan, profile))

    assert profile.copy("OFF", 0) == cluster.gpu.launch_ns + ceil(stash * 1e9 / off_rate)
    assert profile.copy("LD", 0) == cluster.gpu.launch_ns + ceil(stash * 1e9 / load_rate)
    assert trace.summary().makespan_ns > profile.copy("OFF", 0)
    assert cluster.host is not None
    slow = replace(cluster, host=replace(cluster.host, from_gpu_bytes_per_s=10**9))
    assert price_plan(plan, slow).copy("OFF", 0) > 10 * profile.copy("OFF", 0)
    assert price_plan(plan, slow).copy("LD", 0) == profile.copy("LD", 0)
    with pytest.raises(InvalidInputError, match="nothing is known of the host"):
        price_plan(plan, replace(cluster, host=None))


def test_plans_that_do_not_offload_need_no_host() -> None:
    plan = build_plan(find_preset("llama3-8b"), schedule="1f1b", pp=2, num_microbatches=4, seq=4096)

    assert price_plan(plan, replace(load_cluster("cpu-host"), host=None)).copy_ns == {}


PROFILE = Profile(
    Mover.INLINE,
    work_ns={("F", 0): 2000, ("I", 0): 1000, ("W", 0): 900},
    bucket_ns={("OPT", 0, 1): 70},
    channel={"f0_1": ChannelNs(500, 20, 3)},
    group_ns={("dp", "AR", 0, 1): 5, ("dp", "AR", 0, None): 6, ("norm", "NORM", None, None): 2},
    copy_ns={("OFF", 0): 9},
    post_ns={"SF": 3},
    braid_ns={(("F", 0), ("B", 0)): 3500, (("F", 0), ("I", 0), ("W", 0)): 3600},
    issue_ns=4,
)


def test_profiles_fall_back_as_the_model_of_time_says() -> None:
    """B is I + W, RC is F, a bucket's collective before the stage's; anything else is an error, not zero."""
    assert PROFILE.work("B", 0) == 1900
    assert PROFILE.work("RC", 0) == 2000
    assert PROFILE.bucket("UNDO", 0, 1) == 0
    assert [PROFILE.group("dp", "AR", 0, bucket) for bucket in (1, 2)] == [5, 6]
    assert (PROFILE.post("SF"), PROFILE.post("RB"), PROFILE.copy("OFF", 0)) == (3, 0, 9)
    for missing in (
        lambda: PROFILE.work("F", 1),
        lambda: PROFILE.bucket("OPT", 0, 0),
        lambda: PROFILE.group("dp", "RS", 0, 1),
        lambda: PROFILE.transfer("b1_0"),
        lambda: PROFILE.copy("LD", 0),
    ):
        with pytest.raises(InvalidInputError, match="the profile has no duration for"):
            missing()


def test_a_braid_takes_the_sum_of_its_members_unless_the_profile_says_otherwise() -> None:
    """Listed order counts: the same members the other way round are another braid."""
    assert PROFILE.braid((("F", 0), ("B", 0))) == 3500
    assert PROFILE.braid((("B", 0), ("F", 0))) == 2000 + 1900
    with pytest.raises(InvalidInputError, match="the profile has no duration for I 7"):
        PROFILE.braid((("F", 0), ("B", 7)))


@pytest.mark.parametrize("members", [(), (("OPT", 0),), (("F", 0), ("B", -1))])
def test_a_braid_is_made_of_passes(members: tuple[tuple[str, int], ...]) -> None:
    with pytest.raises(InvalidInputError, match="a braid is made of passes"):
        Profile(Mover.ENGINE, work_ns={}, braid_ns={members: 1})


def test_profiles_survive_their_file() -> None:
    """Equal after writing and reading."""
    assert Profile.from_json(PROFILE.to_json()) == PROFILE


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"F 0": 2000', '"F 0": 2000.0', "work_ns.F 0: wrong type: got 2000.0"),
        ('"F 0": 2000', '"F 0": -1', "work_ns.F 0: wrong type: got -1"),
        ('"F 0": 2000', '"F zero": 1', "work_ns.F zero: malformed key"),
        ('"F 0": 2000', '"I 0": 1', "I 0: the key stands twice"),
        ('"FB F 0|B 0"', '"FB F 0|OPT 0"', "braid_ns.FB F 0|OPT 0: malformed key"),
        ('"FB F 0|B 0"', '"FB F 0|B 00"', "braid_ns.FB F 0|B 00: malformed key"),
        ('"FB F 0|B 0": 3500', '"FB F 0|B 0": -1', "braid_ns.FB F 0|B 0: wrong type: got -1"),
        ('"inline"', '"magic"', "mover: unknown mover: got 'magic'"),
        ('"schema_version": 1', '"schema_version": 2', "not a profile of this version"),
        ('"issue_ns": 4', '"issue": 4', "issue: unknown key"),
        ('"lat_ns": 20,', "", "channel.f0_1: wrong keys"),
        ("{", "", "not a JSON document"),
    ],
)
def test_profiles_are_read_strictly(old: str, new: str, message: str) -> None:
    """Wrong types, names and versions are refused with their field."""
    with pytest.raises(InvalidInputError) as caught:
        Profile.from_json(PROFILE.to_json().replace(old, new, 1))

    assert message in str(caught.value)


def test_negative_durations_cannot_be() -> None:
    """Not even in memory."""
    with pytest.raises(InvalidInputError, match="a duration is negative"):
        Profile(Mover.ENGINE, work_ns={("F", 0): -1})


def test_formats_of_a_plan_are_those_of_the_scenario() -> None:
    """Megatron's mixed precision costs 18 bytes a parameter; float32 costs 16."""
    assert formats_of_plan(param="bf16", grad="f32", act="bf16", moment="f32") == BF16
    assert formats_of_plan(param="f32", grad="f32", act="f32", moment="f32") == find_formats("fp32")
    assert (BF16.state_bytes, find_formats("fp32").state_bytes) == (18, 16)
    with pytest.raises(InvalidInputError, match="no cost is known for this type"):
        formats_of_plan(param="f4", grad="f32", act="bf16", moment="f32")
