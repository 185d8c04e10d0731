"""Maps with exclusions and constraints: each promise holds, and every file reads back as the map it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_cases import fitting_meshes, small_cluster

from exactmap.errors import InfeasibleError
from exactmap.topology.exact_map.exact_map import ExactMap
from exactmap.topology.exact_map.host_list import compress_hosts, default_hosts, expand_hosts
from exactmap.topology.exact_map.launch_files import (
    read_host_file,
    read_rank_file,
    read_slurm_file,
    write_host_file,
    write_rank_file,
    write_slurm_file,
)
from exactmap.topology.exact_map.map_file import write_map
from exactmap.topology.exact_map.map_reader import read_map
from exactmap.topology.exact_map.place import exact_map_of, fabric_of, machine_of
from exactmap.topology.exact_map.request import Constraint, Exclusion, MapRequest, Spares
from exactmap.topology.exact_map.verify import verified_map
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import Axis, Mesh

REQUIRE = st.lists(
    st.sampled_from(
        [
            "tp within rack",
            "tp,cp within rack",
            "tp within host",
            "cp within host",
            "pp stages whole racks",
            "dp along rails",
        ]
    ).map(Constraint.parse),
    max_size=2,
    unique=True,
)


@st.composite
def requests(draw: st.DrawFn, cluster: Cluster) -> MapRequest:
    """A request that names what is there, spares by trays only where trays are whole."""
    machine = machine_of(cluster)
    trays = cluster.used_per_domain % cluster.gpus_per_host == 0
    parts = {"gpu": machine.num_gpus, "host": machine.num_hosts, "rack": machine.num_racks}
    exclude = []
    for _ in range(draw(st.integers(0, 3))):
        part = draw(st.sampled_from(["gpu", "gpu", "host", "rack"]))
        number = draw(st.integers(0, parts[part] - 1))
        exclude.append(Exclusion.parse(f"{part} {number}"))
    return MapRequest(
        spares=draw(st.sampled_from([Spares.GPUS, Spares.RAILS, *([Spares.TRAYS] if trays else [])])),
        exclude=tuple(exclude),
        require=tuple(
            each for each in draw(REQUIRE) if machine.num_rails > 1 or each.rule.value != "along rails"
        ),
    )


@st.composite
def maps(draw: st.DrawFn) -> tuple[ExactMap, Cluster]:
    """A map that exists; requests that cannot be kept are told apart by their error."""
    mesh, cluster = draw(fitting_meshes(most=128))
    # Room for what is left out.
    roomy = replace(cluster, num_gpus=min(cluster.num_gpus + 6 * cluster.scale_up.domain_size, 1024))
    asked = replace(roomy, map_request=draw(requests(roomy)))
    try:
        return exact_map_of(asked, mesh), asked
    except InfeasibleError:
        plain = replace(roomy, map_request=MapRequest())
        return exact_map_of(plain, mesh), plain


@given(maps())
@settings(max_examples=200, deadline=None)
def test_promises_hold_rank_by_rank(made: tuple[ExactMap, Cluster]) -> None:
    """No GPU twice, none excluded, at most so many of a rack, no group split: counted without arrays."""
    laid, cluster = made
    mesh, machine, gpu = laid.mesh, laid.machine, laid.gpu.tolist()

    assert len(set(gpu)) == mesh.num_ranks
    assert not any(laid.excluded[gpu])
    racks = [each // machine.domain_size for each in gpu]
    assert max(racks.count(rack) for rack in set(racks)) <= cluster.used_per_domain
    for constraint in laid.request.require:
        text = str(constraint)
        for group in mesh.groups(constraint.axes):
            if "within rack" in text:
                assert len({racks[rank] for rank in group}) == 1
            if "within host" in text:
                assert len({gpu[rank] // machine.gpus_per_host for rank in group}) == 1
        if "whole racks" in text:
            stages = {(racks[rank], mesh.coords(rank).pp) for rank in range(mesh.num_ranks)}
            assert len(stages) == len(set(racks))
    if laid.request.spares is Spares.TRAYS:
        for host in {each // machine.gpus_per_host for each in gpu}:
            first = host * machine.gpus_per_host
            assert not laid.excluded[first : first + machine.gpus_per_host].any()


@given(maps())
@settings(max_examples=100, deadline=None)
def test_rails_stay_rails_beside_dead_gpus(made: tuple[ExactMap, Cluster]) -> None:
    """With spares by rail, rank r of a run is on rail r mod the number of rails."""
    laid, cluster = made
    if laid.request.spares is not Spares.RAILS or any("host" in str(each) for each in laid.request.require):
        return
    run = laid.mesh.num_ranks
    if any("whole racks" in str(each) for each in laid.request.require) and laid.mesh.pp > 1:
        run = laid.mesh.stride(Axis.PP)

    rails = laid.machine.rail(laid.gpu)
    expected = np.arange(laid.mesh.num_ranks) % run % laid.machine.num_rails
    assert rails.tolist() == expected.tolist()
    assert cluster.map_request == laid.request


@given(maps(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_map_file_reads_back_as_it_was(made: tuple[ExactMap, Cluster], rows: bool) -> None:
    laid, cluster = made
    hosts = default_hosts(laid.machine.num_hosts)
    data = write_map(laid, cluster=cluster.name, plan_sha256="ab" * 32, hosts=hosts, rows=rows)

    found = read_map(data, "m.map", lambda _machine: fabric_of(cluster))

    assert found.exact_map.gpu.tolist() == laid.gpu.tolist()
    assert found.exact_map.machine == laid.machine
    assert (found.exact_map.mesh, found.plan_sha256) == (laid.mesh, "ab" * 32)
    assert found.exact_map.request == replace(laid.request, order=laid.mesh.order)
    assert found.exact_map.num_usable == laid.num_usable
    assert found.hosts == tuple(hosts)
    assert (
        write_map(found.exact_map, cluster=cluster.name, plan_sha256="ab" * 32, hosts=hosts, rows=rows)
        == data
    )


@given(maps())
@settings(max_examples=200, deadline=None)
def test_launch_files_read_back_as_the_map(made: tuple[ExactMap, Cluster]) -> None:
    """A rank file says any map; a host file and Slurm's list say it rightly or not at all."""
    laid, cluster = made
    hosts = default_hosts(laid.machine.num_hosts)
    for write, read in (
        (write_rank_file, read_rank_file),
        (write_host_file, read_host_file),
        (write_slurm_file, read_slurm_file),
    ):
        try:
            text = write(laid, hosts)
        except InfeasibleError:
            assert write is not write_rank_file
            continue
        lines = read(text, "f", laid.machine, laid.excluded, hosts)
        again = verified_map(lines, laid.mesh, laid.machine, laid.request, fabric_of(cluster))
        assert again.gpu.tolist() == laid.gpu.tolist()


@given(
    st.lists(
        st.one_of(
            st.from_regex(r"[a-z]{1,3}[0-9]{1,4}", fullmatch=True),
            st.integers(0, 12).map(lambda number: f"node{number:03d}"),
            st.integers(0, 12).map(lambda number: f"r{number}x"),
            st.from_regex(r"[a-z]{1,4}", fullmatch=True),
        ),
        max_size=40,
    )
)
def test_host_lists_keep_names_and_order(names: list[str]) -> None:
    assert expand_hosts(compress_hosts(names)) == names


def test_plain_maps_go_into_every_launch_file() -> None:
    """The refusal above is for odd maps alone."""
    cluster = small_cluster(72, 12, 4, 8)
    laid = exact_map_of(cluster, Mesh(tp=4, dp=10))
    hosts = default_hosts(18)

    assert write_host_file(laid, hosts).startswith("node00 slots=4\nnode01 slots=4\nnode03 slots=4\n")
    assert write_slurm_file(laid, hosts).splitlines()[:5] == ["node00"] * 4 + ["node01"]
    swapped = replace(laid, gpu=laid.gpu[::-1].copy())
    with pytest.raises(InfeasibleError, match="cannot be said by a host file"):
        write_host_file(swapped, hosts)
