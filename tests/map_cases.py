"""Small clusters, meshes and maps that several tests of maps share."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from hypothesis import strategies as st

from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.topology.exact_map.request import MapRequest
from exactmap.topology.fabric.spec import FabricKind, FabricSpec, Switch
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import Axis, Mesh

__all__ = ["clusters", "fitting_meshes", "meshes", "small_cluster"]

_SIZES = st.sampled_from([1, 1, 2, 3, 4])
# 16 ports: 2 tiers reach 128 GPUs, 3 reach 1,024.
_SWITCH = Switch("small", 16, 10**11, 16, 500, 100)


@cache
def _base() -> Cluster:
    return load_cluster("gb300-nvl72")


def small_cluster(
    num_gpus: int, domain: int, host: int, used: int, *, rails: int = 1, request: MapRequest | None = None
) -> Cluster:
    """A cluster of racks of `domain` GPUs in hosts of `host` on a fat tree of small switches."""
    base = _base()
    return replace(
        base,
        num_gpus=num_gpus,
        gpus_per_host=host,
        used_per_domain=used,
        scale_up=replace(base.scale_up, domain_size=domain),
        fabric=FabricSpec(FabricKind.FAT_TREE, (_SWITCH,), rails=rails),
        map_request=request or MapRequest(),
    )


def meshes() -> st.SearchStrategy[Mesh]:
    """Meshes of up to 1,024 ranks in any order of axes."""
    return st.builds(
        lambda sizes, order: Mesh(*sizes, order=tuple(order)),
        st.tuples(_SIZES, _SIZES, _SIZES, _SIZES, _SIZES),
        st.permutations(list(Axis)),
    )


@st.composite
def clusters(draw: st.DrawFn, at_least: int = 1) -> Cluster:
    """Clusters of up to 1,024 GPUs with room for `at_least` ranks, the last rack perhaps not full."""
    host = draw(st.sampled_from([1, 2, 4]))
    domain = host * draw(st.integers(1, 6))
    used = draw(st.integers(1, domain))
    full, rest = divmod(at_least, used)
    least = full * domain + rest
    if least > 1024:
        used, least = domain, at_least
    num_gpus = draw(st.integers(least, min(1024, least + 2 * domain)))
    return small_cluster(num_gpus, domain, host, used, rails=draw(st.sampled_from([1, 2, 4])))


@st.composite
def fitting_meshes(draw: st.DrawFn, most: int = 1024) -> tuple[Mesh, Cluster]:
    """A mesh and a cluster that it fits."""
    mesh = draw(meshes().filter(lambda mesh: mesh.num_ranks <= most))
    return mesh, draw(clusters(at_least=mesh.num_ranks))
