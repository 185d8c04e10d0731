"""Overrides of clusters, entries of lists included, and numbers that no cluster has."""

from __future__ import annotations

from pathlib import Path

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.cluster_source import read_cluster
from exactmap.sim.scenario.mapped_cluster import load_mapped_cluster
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.topology.catalog import catalog_path
from exactmap.topology.fabric.build import build_fabric
from exactmap.topology.hardware import MAX_GPUS, Cluster

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def _problems(*overrides: str) -> list[str]:
    with pytest.raises(InvalidInputError) as caught:
        read_cluster("gb300-nvl72", overrides)
    return [str(each) for each in caught.value.problems or (caught.value,)]


def _with_sn5600(how: str) -> Cluster:
    override = "cluster.fabric.switches.0.part=SN5600"
    if how == "cluster":
        return read_cluster("gb300-nvl72", [override])
    if how == "plan":
        return load_mapped_cluster("gb300-nvl72", [override])
    return load_scenario(SCENARIOS / "gb300-rack.yaml", [override]).cluster


@pytest.mark.parametrize("how", ["cluster", "plan", "scenario"])
def test_an_override_reaches_into_a_list_of_the_catalog(how: str) -> None:
    """Another part takes along all that the former brought, SHARP here; the number of tiers stays."""
    before, after = read_cluster("gb300-nvl72").fabric, _with_sn5600(how).fabric

    assert [switch.name for switch in after.switches] == ["Spectrum-4 SN5600"]
    assert before.switches[0].reduction == "SHARPv4"
    assert after.switches[0].reduction == ""
    assert after.cables == before.cables


def test_an_entry_keeps_what_is_not_overridden() -> None:
    """Entries beside it as well, with the facts of both."""
    before = read_cluster("gb300-nvl72")
    after = read_cluster("gb300-nvl72", ["fabric.cables.1.reach_m=200", "fabric.cables.1.power=9 W"])

    assert after.fabric.cables[0] == before.fabric.cables[0]
    assert (after.fabric.cables[1].reach_m, after.fabric.cables[1].power_w) == (200, 9)
    assert after.fabric.cables[1].bytes_per_s == before.fabric.cables[1].bytes_per_s
    gone = {"fabric.cables.1.reach_m", "fabric.cables.1.power"}
    assert before.facts.keys() - after.facts.keys() == gone


def test_a_place_that_the_list_does_not_have_is_refused() -> None:
    (problem,) = _problems("fabric.switches.1.part=SN5600")

    assert "--set fabric.switches.1.part=SN5600" in problem
    assert "no such place in the list: got 1, expected 0 to 0" in problem


def test_a_wrong_field_of_an_entry_names_those_that_there_are() -> None:
    (problem,) = _problems("fabric.cables.1.rech_m=3")

    assert "cluster.fabric.cables.1.rech_m: unknown field: expected one of part, name, bandwidth" in problem


@pytest.mark.parametrize(
    "override",
    [
        "cluster.fabric.switches=[{part: NoSuch}]",
        "cluster.fabric.switches.0.part=NoSuch",
        "gpu.part=NoSuch",
        "scale_out.part=NoSuch",
    ],
)
def test_an_unknown_part_is_one_problem_under_what_was_typed(override: str) -> None:
    """Numbers that the part would have brought are not asked for."""
    (problem,) = _problems(override)

    assert problem.startswith(f"--set {override}: ")
    assert "unknown part: got 'NoSuch'" in problem


def test_other_problems_are_told_beside_an_unknown_part() -> None:
    problems = _problems("gpu.part=NoSuch", "gpus_per_host=")

    assert len(problems) == 2
    assert "cluster.gpus_per_host: a field is missing" in problems[1]


def test_problems_of_a_cluster_section_are_told_beside_an_unknown_cluster() -> None:
    with pytest.raises(InvalidInputError) as caught:
        load_scenario(
            SCENARIOS / "gb300-rack.yaml", ["cluster.catalog=gb30", "cluster.spares=8", "training.steps=0"]
        )

    told = str(caught.value)
    assert "unknown cluster: got 'gb30'" in told
    assert "cluster.spares: unknown field" in told
    assert "training.steps: wrong value" in told


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scale_out.bandwidth=0 Gb/s", "must be positive"),
        ("scale_up.bandwidth=0 GB/s", "must be positive"),
        ("gpu.peak.bf16=0 FLOP/s", "must be positive"),
        ("gpu.memory=0 GiB", "must be positive"),
        ("gpu.reserved_memory=500 GiB", "nothing is left of the memory"),
        ("fabric.cable=2 s", "a delay out of range"),
        ("scale_out.latency=9e18 ns", "a delay out of range"),
        ("fabric.switches.0.hop=9e18 ns", "a delay out of range"),
        ("fabric.switches.0.max_ports=100", "fewer ports when all are split"),
        ("fabric.switches=[7]", "expected a section"),
        ("gpu=H100", "expected a section with fields such as part, name"),
        ("used_per_domain=100", "hint: scale_up.domain_size and used_per_domain go together"),
        (f"num_gpus={MAX_GPUS + 1}", f"expected 1 to {MAX_GPUS}"),
        ("gpus_per_host=5.0", "hint: write 5"),
    ],
)
def test_numbers_that_no_cluster_has_are_refused(override: str, message: str) -> None:
    (problem,) = _problems(override)

    assert "cluster." in problem
    assert message in problem


def test_what_is_no_whole_number_for_certain_gets_no_hint() -> None:
    (problem,) = _problems("num_gpus=1e300")

    assert "hint" not in problem


def test_a_cluster_file_is_no_scenario(tmp_path: Path) -> None:
    """One message instead of a list of all fields that a scenario would have."""
    path = tmp_path / "my.yaml"
    path.write_text("exactmap-cluster: 1\nname: mine\n", encoding="utf-8")

    with pytest.raises(InvalidInputError, match="a cluster file is no scenario") as caught:
        load_scenario(path)

    assert "cluster: my.yaml" in str(caught.value)


def test_a_list_that_is_a_fact_can_be_reached_too(tmp_path: Path) -> None:
    """What is left of it is no longer what the source said."""
    path = tmp_path / "my.yaml"
    text = catalog_path("gb300-nvl72").read_text(encoding="utf-8")
    path.write_text(
        f"{text}  oversubscription: {{value: [1, 2, 3], source: drawing, confidence: measured}}\n",
        encoding="utf-8",
    )

    assert read_cluster(path).facts["fabric.oversubscription"].source == "drawing"
    after = read_cluster(path, ["fabric.oversubscription.1=4"])

    assert after.fabric.oversubscription == (1, 4, 3)
    assert "fabric.oversubscription" not in after.facts


@pytest.mark.parametrize(("rate", "planes"), [(200, 1), (400, 1), (800, 2), (1000, 3)])
def test_an_interface_faster_than_the_switches_ports_takes_several_planes(rate: int, planes: int) -> None:
    """What if the network were faster: the switches stay, so an interface takes more of their ports."""
    cluster = read_cluster("h100-8", [f"cluster.scale_out.bandwidth={rate} Gb/s"], num_gpus=1024)

    assert cluster.fabric.planes == planes
    assert build_fabric(cluster).bisection_bytes_per_s == 512 * rate * 10**9 / 8
