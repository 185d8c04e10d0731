"""The section `map` of a scenario, and what plans and searches make of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import exactmap
from exactmap.errors import InvalidInputError
from exactmap.sim.planner.explain import rejection_counts
from exactmap.sim.scenario.mapped_cluster import load_mapped_cluster
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.topology.exact_map.request import Constraint, Exclusion, MapRequest, Spares
from exactmap.topology.mapping import Axis

SCENARIOS = Path(__file__).parents[2] / "scenarios"
FIELDS = (
    "map={order: [tp, cp, ep, pp, dp], spares: trays, exclude: [gpu 3, tray 4..5], "
    "require: [tp within rack, 'dp along rails']}"
)


def test_the_section_is_read_and_written_out_in_full(tmp_path: Path) -> None:
    scenario = load_scenario(SCENARIOS / "gb300-rack.yaml", [FIELDS])
    path = tmp_path / "again.yaml"
    path.write_text(scenario.effective(), encoding="utf-8")

    request = scenario.cluster.map_request
    assert request == MapRequest(
        (Axis.TP, Axis.CP, Axis.EP, Axis.PP, Axis.DP),
        Spares.TRAYS,
        (Exclusion.parse("gpu 3"), Exclusion.parse("host 4..5")),
        (Constraint.parse("tp within rack"), Constraint.parse("dp along rails")),
    )
    assert load_scenario(path).cluster.map_request == request
    assert load_scenario(SCENARIOS / "gb300-rack.yaml").cluster.map_request == MapRequest()


def test_one_text_stands_for_a_list_of_it() -> None:
    scenario = load_scenario(SCENARIOS / "gb300-rack.yaml", ["map.exclude=gpu 3", "map.order=dp,tp,cp,ep,pp"])

    assert scenario.cluster.map_request.exclude == (Exclusion.parse("gpu 3"),)
    assert scenario.cluster.map_request.order[0] is Axis.DP


def test_what_is_excluded_does_not_count_as_usable() -> None:
    scenario = load_scenario(SCENARIOS / "gb300-rack.yaml", ["map.exclude=[tray 0, gpu 71]"])

    assert scenario.max_gpus == 144 - 5


def test_an_exclusion_that_is_not_there_is_refused_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    text = (SCENARIOS / "gb300-rack.yaml").read_text(encoding="utf-8")
    path.write_text(text + "map:\n  exclude: [rack 2]\n", encoding="utf-8")
    line = len(text.splitlines()) + 2

    with pytest.raises(InvalidInputError, match=rf"s\.yaml:{line}: map\.exclude: no such rack to leave out"):
        load_scenario(path)


def test_the_plan_has_the_order_of_the_map() -> None:
    order = "pp,tp,cp,ep,dp"
    chosen = exactmap.plan(SCENARIOS / "cpu-quick.yaml", [f"map.order={order}"])

    assert ",".join(chosen.plan.mesh.order) == order
    assert f"order={order}\n".encode() in chosen.content


def test_the_search_refuses_layouts_that_no_map_keeps_whole() -> None:
    """A tray has 4 GPUs: tensor-parallel groups of 8 are refused, the group that breaks is named."""
    ranking = exactmap.plan(
        SCENARIOS / "gb300-rack.yaml",
        ["parallel.tp=[4, 8]", "map.require=[tp within host]", "limits.memory_headroom=0.0"],
        num_finalists=1,
    ).ranking
    counts = {count.rule: count for count in rejection_counts(ranking)}

    assert ranking.winner.candidate.tp == 4
    assert counts["map"].num > 0
    assert "the tp group" in counts["map"].example
    assert "such a group spans 8 ranks" in counts["map"].example


def test_a_plan_takes_the_cluster_and_map_of_a_scenario() -> None:
    cluster = load_mapped_cluster(SCENARIOS / "gb300-rack.yaml", ["map.exclude=[gpu 3]"])

    assert (cluster.name, cluster.usable_gpus) == ("gb300-nvl72", 143)
    with pytest.raises(InvalidInputError, match=r"training: unknown field"):
        load_mapped_cluster("h100-8", ["training.steps=5"])
    with pytest.raises(InvalidInputError, match="no GPU is left to use"):
        load_mapped_cluster("h100-8", ["map.exclude=[host 0]"])
