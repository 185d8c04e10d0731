"""Verbs about clusters take the same sources and overrides; maps come back from files as people have them."""

from __future__ import annotations

from pathlib import Path

import pytest

import exactmap
from exactmap.errors import InvalidInputError
from exactmap.sim.verbs.whole_cluster import simulate_whole

SCENARIO = """\
exactmap: 1
name: two-racks
cluster: {catalog: gb300-nvl72, num_gpus: 144, used_per_domain: 64}
model: llama3-8b
training: {sequence: 8192 tokens, batch: 32 sequences}
parallel: {tp: 8, pp: 4, dp: 4, chunks: 1, microbatch: 1, schedule: 1f1b}
map: {exclude: [gpu 3]}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "two-racks.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    return path


def test_each_verb_takes_the_cluster_of_a_scenario(scenario: Path) -> None:
    """Of a scenario only its cluster counts."""
    assert exactmap.cluster(scenario).cluster.num_gpus == 144
    assert exactmap.traffic(scenario, senders=72).num_gpus == 144
    assert exactmap.collective("all_reduce", cluster=scenario, ranks=128, size="1 MiB").shape.per_domain == 64
    (entry,) = exactmap.catalog(scenario).entries
    assert {number.field: number.value for number in entry.numbers}["num_gpus"] == "144"


def test_each_verb_takes_overrides_of_the_cluster(scenario: Path) -> None:
    """With the section's name before them or without; links and times follow."""
    slow = "scale_out.bandwidth=400 Gb/s"
    whole = exactmap.collective("all_gather", cluster=scenario, ranks=128, size="1 GiB").sizes[0].time
    half = exactmap.collective("all_gather", cluster=scenario, ranks=128, size="1 GiB", overrides=[slow])

    assert exactmap.traffic(scenario, [f"cluster.{slow}"], senders=72).interface_bytes_per_s == 50e9
    assert half.sizes[0].time.tier_ns["leaf"] == pytest.approx(2 * whole.tier_ns["leaf"], rel=0.01)


def test_a_group_that_does_not_divide_is_told_what_would(scenario: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        exactmap.collective("all_reduce", cluster=scenario, ranks=100, size="1 MiB")

    assert caught.value.hint == "--per-domain 50, or another that divides 100"
    exactmap.collective("all_reduce", cluster=scenario, ranks=100, size="1 MiB", per_domain=50)


def test_a_map_without_names_comes_back_as_the_same_bytes(scenario: Path, tmp_path: Path) -> None:
    """Names that nobody gave are not written, whatever the map is read from."""
    first, again = tmp_path / "first.map", tmp_path / "again.map"
    ranks, tasks = tmp_path / "ranks", tmp_path / "tasks"
    exactmap.map(scenario, out=first, rankfile=ranks, slurm=tasks)

    for source in (first, ranks, tasks):
        exactmap.map(scenario, read=source, out=again)
        assert again.read_bytes() == first.read_bytes()


def test_files_for_launchers_may_come_from_other_editors(scenario: Path, tmp_path: Path) -> None:
    """A byte order mark and line ends of another system change nothing; what is no text is refused."""
    first, again, ranks = tmp_path / "first.map", tmp_path / "again.map", tmp_path / "ranks"
    exactmap.map(scenario, out=first, rankfile=ranks)
    ranks.write_bytes(b"\xef\xbb\xbf" + ranks.read_bytes().replace(b"\n", b"\r\n"))

    exactmap.map(scenario, read=ranks, out=again)

    assert again.read_bytes() == first.read_bytes()
    ranks.write_bytes(b"rank 0=node00 slot=0\nrank 1=\xff slot=1\n")
    with pytest.raises(InvalidInputError, match=r"ranks:2: the file is not UTF-8: got byte 0xff"):
        exactmap.map(scenario, read=ranks)


def test_a_name_that_is_neither_host_nor_file_is_told_so(scenario: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no file of this name"):
        exactmap.map(scenario, hosts="hosts.txt")


def test_a_list_that_is_left_empty_is_none(scenario: Path) -> None:
    assert exactmap.map(scenario, ["map.exclude="]).budget.excluded == 0


def test_a_plan_takes_cluster_and_map_of_a_scenario(scenario: Path, tmp_path: Path) -> None:
    """Sharing links and stepping every GPU, as the reference says; the catalog's own cluster is too small."""
    path = tmp_path / "it.plan"
    path.write_bytes(exactmap.plan(scenario).content)

    shared = exactmap.simulate(path, engine="events", links=True, cluster=scenario)
    whole = simulate_whole(path, cluster=scenario)

    assert shared.to_dict()["extra"]["shared_links"]  # type: ignore[index]
    assert whole.to_dict()["num_gpus_installed"] == 144
