"""`simulate --links`: what it returns and writes, what it refuses, and what is not counted twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import exactmap
from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.cost.links import price_channels, price_groups
from exactmap.sim.cost.plan_header import formats_of, mesh_of
from exactmap.sim.cost.price_plan import price_plan
from exactmap.sim.plan.plan import Plan, Precision
from exactmap.sim.plan.writer import write_plan
from exactmap.sim.scenario.cluster_source import read_cluster
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.verbs.link_sharing import priced_alone
from exactmap.sim.verbs.simulate import Simulation
from exactmap.sim.workload.model import ModelConfig, ModelKind
from exactmap.topology.hardware import Cluster

CLUSTER = Path(__file__).parents[2] / "scenarios" / "h100-1024.yaml"
BF16 = Precision("bf16", "f32", "bf16", "bf16", "f32")


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Eight stages side by side in two hosts: messages leave a host, gradient rings do so from each."""
    model = ModelConfig(
        ModelKind.GPT,
        layers=8,
        hidden=4096,
        heads=32,
        kv_heads=32,
        head_dim=128,
        ffn=16384,
        vocab=50_000,
        positions=2048,
        tied=False,
    )
    return build_plan(
        model,
        schedule="1f1b",
        pp=8,
        num_microbatches=16,
        seq=2048,
        dp=64,
        tp=2,
        mesh_order=("tp", "cp", "ep", "pp", "dp"),
        precision=BF16,
    )


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return read_cluster(CLUSTER)


@pytest.fixture(scope="module")
def files(plan: Plan, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The plan, and what it costs on the cluster."""
    folder = tmp_path_factory.mktemp("links")
    (folder / "a.plan").write_bytes(write_plan(plan))
    (folder / "costs.json").write_text(price_plan(plan, cluster).to_json(), encoding="ascii")
    return folder / "a.plan", folder / "costs.json"


def shared(files: tuple[Path, Path], **options: object) -> Simulation:
    return exactmap.simulate(
        files[0],
        engine="events",
        profile=files[1],
        links=True,
        cluster=CLUSTER,
        **options,  # type: ignore[arg-type]
    )


def test_a_step_with_shared_links(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Step time with and without, tiers, hot links, delays: returned, and written into the prediction."""
    alone = exactmap.simulate(files[0], engine="replay", profile=files[1])

    made = shared(files, out=tmp_path, pictures=False)

    assert made.links is not None
    assert made.links.unshared_step_time_ns == alone.result.step_time_ns
    assert made.links.step_time_ns == made.result.step_time_ns > alone.result.step_time_ns
    assert [tier.tier for tier in made.links.tiers] == [0, 1]
    assert made.links.hot[0].full_ns > 0
    # A gradient ring and messages leave by the same interface.
    assert {delay.kind for delay in made.links.delays if delay.delay_ns} == {"channel", "group"}
    written = json.loads((tmp_path / "prediction.json").read_text(encoding="utf-8"))
    assert written["extra"]["shared_links"] == json.loads(json.dumps(made.links.to_dict()))


def test_equal_seeds_give_equal_bytes(files: tuple[Path, Path]) -> None:
    def run(seed: int) -> Simulation:
        return shared(files, spread="ecmp", link_seed=seed)

    one, again, other = run(1), run(1), run(2)

    assert one.to_dict() == again.to_dict()
    assert one.trace.same_times(again.trace)
    assert one.links != other.links


def test_striping_over_paths_evens_out(files: tuple[Path, Path]) -> None:
    by_one, by_many = shared(files, spread="ecmp"), shared(files, spread="ecmp", paths=16)
    sprayed = shared(files)

    assert by_one.links is not None
    assert by_many.links is not None
    assert by_one.links.tiers[1].max_use > by_many.links.tiers[1].max_use
    assert by_one.result.step_time_ns > by_many.result.step_time_ns >= sprayed.result.step_time_ns


def test_a_taper_is_not_counted_twice(plan: Plan, cluster: Cluster) -> None:
    """A lone message crosses a tapered tier at full rate; a plan's costs have it at what is left."""
    tapered = replace(cluster, fabric=replace(cluster.fabric, oversubscription=(7.0,)))
    mesh = mesh_of(plan.mesh)
    costs = price_plan(plan, tapered)

    alone = priced_alone(plan, costs, tapered)

    assert priced_alone(plan, costs, cluster) is costs
    assert alone.channel == price_channels(plan.channels, mesh, tapered, alone=True)
    flat = price_groups(plan.groups, plan.buckets, mesh, tapered, formats_of(plan), alone=True)
    assert {key: alone.group_ns[key] for key in flat} == flat
    slower = price_groups(plan.groups, plan.buckets, mesh, tapered, formats_of(plan))
    assert all(slower[key] > ns for key, ns in flat.items() if key[1] == "AR" and key[0] == "dp")
    assert alone.work_ns == costs.work_ns


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"engine": "replay"}, "event engine alone"),
        ({"cluster": None}, "whose links"),
        ({"spread": "both"}, "unknown spread"),
        ({"paths": 65}, "too many paths"),
        ({"link_seed": -1}, "seed is negative"),
        ({"links": False}, "add --links"),
        ({"profile": None, "host": "host.json"}, "no fabric"),
        ({"cluster": "gb300"}, "unknown cluster"),
    ],
)
def test_what_makes_no_sense_is_refused(
    files: tuple[Path, Path], options: dict[str, object], text: str
) -> None:
    asked = {"engine": "events", "links": True, "cluster": CLUSTER, "profile": files[1], **options}

    with pytest.raises(InvalidInputError, match=text):
        exactmap.simulate(files[0], **asked)  # type: ignore[arg-type]


def test_a_plan_larger_than_the_cluster_is_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(InfeasibleError, match="larger than the cluster"):
        exactmap.simulate(files[0], engine="events", profile=files[1], links=True, cluster="h100-8")


def test_a_scenario_has_its_own_cluster() -> None:
    with pytest.raises(InvalidInputError, match="cluster of its own"):
        exactmap.simulate(CLUSTER, engine="events", links=True, cluster="h100-8")
