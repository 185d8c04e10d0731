"""Broken map files, rank files, host lists and requests: each is refused with its reason, at its line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from map_cases import small_cluster

from exactmap.errors import ExactmapError, InfeasibleError, InvalidInputError
from exactmap.topology.exact_map.host_list import default_hosts, expand_hosts
from exactmap.topology.exact_map.launch_files import read_host_file, read_rank_file, read_slurm_file
from exactmap.topology.exact_map.map_file import write_map
from exactmap.topology.exact_map.map_reader import read_map
from exactmap.topology.exact_map.place import exact_map_of, fabric_of, machine_of
from exactmap.topology.exact_map.request import Constraint, Exclusion, MapRequest, Spares
from exactmap.topology.exact_map.verify import verified_map
from exactmap.topology.mapping import Axis, Mesh

REQUEST = MapRequest(
    spares=Spares.TRAYS,
    exclude=(Exclusion.parse("gpu 13"),),
    require=(Constraint.parse("tp within host"),),
)
CLUSTER = small_cluster(50, 12, 4, 8, rails=2, request=REQUEST)
MESH = Mesh(tp=4, dp=4)
GOOD = write_map(exact_map_of(CLUSTER, MESH), cluster="four racks", hosts=default_hosts(13)).decode("ascii")
# 1 head, 2 hash, 3 cluster, 4 mesh, 5 spares, 6 exclude, 7 require, 8 hosts, 9.. ranks, last end


def test_the_good_file_is_what_the_cases_below_break() -> None:
    assert GOOD.splitlines()[2:] == [
        "cluster name=four_racks gpus=50 rack=12 host=4 used=8 rails=2",
        "mesh tp=4 cp=1 ep=1 pp=1 dp=4 order=tp,cp,ep,dp,pp",
        "spares trays",
        "exclude gpu 13",
        "require tp within host",
        "hosts node[00-12]",
        "ranks 0 n=8 gpu=0 x=2 step=16 at=tp0,cp0,ep0,dp0,pp0 host=0 place=0 rack=0 leaf=0",
        "end ranks=16",
    ]
    assert read_map(GOOD.encode("ascii"), "m.map", lambda _m: fabric_of(CLUSTER)).exact_map.gpu[8] == 16


RANKS = "ranks 0 n=8 gpu=0 x=2 step=16 at=tp0,cp0,ep0,dp0,pp0 host=0 place=0 rack=0 leaf=0"
EIGHT = "ranks 0 n=8 gpu=0 at=tp0,cp0,ep0,dp0,pp0 host=0 place=0 rack=0 leaf=0\n"


def _line(old: str, new: str) -> Callable[[str], str]:
    assert old in GOOD
    return lambda text: text.replace(old, new, 1)


def _more(*lines: str) -> Callable[[str], str]:
    """The first 8 ranks as they are, then these lines."""
    return _line(RANKS + "\n", EIGHT + "".join(f"{line}\n" for line in lines))


SPLIT = (
    "m.map:10: the map does not keep 'tp within host': got the tp group at dp 2: GPUs 18..19 in host 4; "
    "GPUs 20..21 in host 5"
)
BROKEN: dict[str, tuple[Callable[[str], str], str]] = {
    "another version": (_line("exactmap-map 1.0", "exactmap-map 2.0"), "m.map:1: a map of another version"),
    "no map": (_line("exactmap-map 1.0", "exactmap-plan 1.0"), "m.map:1: not a line of a map"),
    "no cluster": (_line("cluster name=four_racks", "cluster nom=four"), "m.map:3: not a line of a map"),
    "impossible cluster": (_line("used=8", "used=13"), "m.map:3: no such cluster"),
    "no mesh": (_line("mesh tp=4", "mesh tp=0"), "m.map:4: an axis must have a size: got 0"),
    "an axis twice": (
        _line("tp,cp,ep,dp,pp", "tp,tp,ep,dp,pp"),
        "m.map:4: the order must name each axis once",
    ),
    "unknown axis": (_line("tp,cp,ep,dp,pp", "tp,xp,ep,dp,pp"), "m.map:4: no such axis"),
    "unknown spares": (_line("spares trays", "spares hosts"), "m.map:5: not a line of a map"),
    "bad exclusion": (_line("gpu 13", "gpu thirteen"), "m.map:6: not an exclusion: got 'gpu thirteen'"),
    "bad constraint": (_line("tp within host", "tp in host"), "m.map:7: not a constraint"),
    "bad hosts": (_line("node[00-12]", "node[00-"), "m.map:8: not a host list"),
    "few hosts": (
        _line("node[00-12]", "node[00-11]"),
        "the hosts are not those of the cluster: got 12 names",
    ),
    "a host twice": (_line("node[00-12]", "node[00-11,00]"), "the hosts are not those of the cluster"),
    "GPU twice": (
        _more("ranks 8 n=8 gpu=0 at=tp0,cp0,ep0,dp2,pp0 host=0 place=0 rack=0 leaf=0"),
        "m.map:10: GPU 0 stands twice: got rank 8; rank 0 has it in line 9",
    ),
    "GPU out of range": (
        _more("ranks 8 n=8 gpu=44 at=tp0,cp0,ep0,dp2,pp0 host=11 place=0 rack=3 leaf=-"),
        "m.map:10: no such GPU: got rank 14 on GPU 50, expected 0 to 49",
    ),
    "excluded GPU": (
        _more("ranks 8 n=8 gpu=12 at=tp0,cp0,ep0,dp2,pp0 host=3 place=0 rack=1 leaf=-"),
        "m.map:10: an excluded GPU takes a rank: got rank 9 on GPU 13",
    ),
    "group split": (
        _more("ranks 8 n=8 gpu=18 at=tp0,cp0,ep0,dp2,pp0 host=4 place=2 rack=1 leaf=-"),
        SPLIT,
    ),
    "rank missing between": (
        _more("ranks 9 n=7 gpu=17 at=tp1,cp0,ep0,dp2,pp0 host=4 place=1 rack=1 leaf=-"),
        "m.map:10: rank 8 is missing: got rank 9",
    ),
    "rank twice": (
        _more("ranks 7 n=9 gpu=17 at=tp3,cp0,ep0,dp1,pp0 host=4 place=1 rack=1 leaf=-"),
        "m.map:10: rank 7 stands twice",
    ),
    "rank missing at the end": (_more(), "m.map:10: rank 8 is missing: got 8 ranks before the end"),
    "fewer ranks than the mesh": (
        lambda text: _more()(text).replace("end ranks=16", "end ranks=8"),
        "m.map:10: rank 8 is missing: got 8 ranks, expected 16 of the mesh",
    ),
    "more ranks than the mesh": (_line("x=2", "x=3"), "m.map:10: rank 16 is one too many"),
    "wrong coordinates": (_line("at=tp0", "at=tp1"), "m.map:9: at does not fit rank and GPU"),
    "wrong host": (
        _line("host=0 place", "host=1 place"),
        "m.map:9: host does not fit rank and GPU: got host=1",
    ),
    "wrong rack": (_line("rack=0 leaf", "rack=1 leaf"), "m.map:9: rack does not fit rank and GPU"),
    "wrong leaf": (_line("leaf=0", "leaf=1"), "m.map:9: the leaf is another: got 1, expected 0"),
    "nothing of a rank": (_line("n=8", "n=0"), "m.map:9: a line without ranks"),
    "endless": (_line("x=2", "x=999999999"), "m.map:9: too many ranks"),
    "no end": (_line("end ranks=16\n", ""), "m.map:9: not a line of a map: got the end of the file"),
    "more after the end": (lambda text: text + "ranks\n", "m.map:11: a line after the end"),
    "no last line end": (lambda text: text[:-1], "m.map:10: the last line has no end"),
    "not ASCII": (_line("spares trays", "spares tr\u00e4ys"), "m.map:5: a map is ASCII text"),
    "empty": (lambda _text: "", "m.map:1: the last line has no end"),
}


def _resealed(text: str) -> bytes:
    parts = text.encode("utf-8").split(b"\n", 2)
    if len(parts) < 3:
        return text.encode("utf-8")
    return b"\n".join([parts[0], b"body sha256=" + sha256(parts[2]).hexdigest().encode("ascii"), parts[2]])


@pytest.mark.parametrize("name", BROKEN)
def test_broken_map_is_refused_at_its_line(name: str) -> None:
    """The hash is made right again, so that the fault itself is found."""
    change, expected = BROKEN[name]

    with pytest.raises(InvalidInputError) as caught:
        read_map(_resealed(change(GOOD)), "m.map", lambda _machine: fabric_of(CLUSTER))

    assert expected in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_changed_file_is_found_by_its_hash() -> None:
    with pytest.raises(InvalidInputError, match=r"m\.map:2: the body has another hash"):
        read_map(GOOD.replace("gpu 13", "gpu 14").encode("ascii"), "m.map")


LAUNCH: list[tuple[Callable[..., object], str, str]] = [
    (read_rank_file, "rank 0=node00 slot=0\nrang 1=node00 slot=1\n", "f:2: not a line of a rank file"),
    (read_rank_file, "rank 0=node00 slot=0\nrank 0=node00 slot=1\n", "f:2: rank 0 stands twice: got line 1"),
    (read_rank_file, "rank 0=node00 slot=4\n", "f:1: no such place in a host: got slot=4, expected 0 to 3"),
    (read_rank_file, "rank 0=elsewhere slot=0\n", "f:1: no such host in the cluster: got 'elsewhere'"),
    (read_rank_file, "rank 0=node00 slot=0\nrank 2=node00 slot=1\n", "f:2: rank 1 is missing"),
    (read_rank_file, "rank 0=node00 slot=0\nrank 1=node00 slot=0\n", "GPU 0 stands twice: got rank 1"),
    (
        read_rank_file,
        "rank 0=node12 slot=3\nrank 1=node00 slot=0\n",
        "f:1: no such GPU: got rank 0 on GPU 51",
    ),
    (read_rank_file, "rank 0=node03 slot=1\nrank 1=node00 slot=0\n", "f:1: an excluded GPU takes a rank"),
    (read_host_file, "node00 slots=two\n", "f:1: not a line of a host file"),
    (read_host_file, "node00 slots=5\n", "f:1: more ranks on node00 than it has GPUs to use: got 5"),
    (
        read_host_file,
        "node03 slots=4\n",
        "f:1: more ranks on node03 than it has GPUs to use: got 4, expected at most 3",
    ),
    (read_slurm_file, "node00\nnode01\nnode00\n", "f:3: rank 2 is one too many: got 3 ranks, expected 2"),
    (read_slurm_file, "node00\nnode99\n", "f:2: no such host in the cluster: got 'node99'"),
    (read_slurm_file, "", "f:1: rank 0 is missing: got 0 ranks"),
]


@pytest.mark.parametrize(("read", "text", "expected"), LAUNCH)
def test_broken_launch_files(read: Callable[..., object], text: str, expected: str) -> None:
    cluster = small_cluster(50, 12, 4, 12, request=MapRequest(exclude=REQUEST.exclude))
    laid = exact_map_of(cluster, Mesh(tp=2))

    with pytest.raises(InvalidInputError) as caught:
        verified_map(
            read(text, "f", laid.machine, laid.excluded, default_hosts(13)),  # type: ignore[arg-type]
            laid.mesh,
            laid.machine,
            laid.request,
            fabric_of(cluster),
        )

    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["node[", "node[1-", "node[3-1]", "a,,b", "a,", "no de", "node[1-2000000]", "[1-2000]x[1-2000]", "a]"],
)
def test_broken_host_lists(text: str) -> None:
    with pytest.raises(InvalidInputError, match="not a host list"):
        expand_hosts(text)


def _request(exclude: Sequence[str] = (), require: Sequence[str] = (), spares: str = "gpus") -> MapRequest:
    return MapRequest(
        spares=Spares(spares),
        exclude=tuple(map(Exclusion.parse, exclude)),
        require=tuple(map(Constraint.parse, require)),
    )


WITHIN_RACK = (
    "no map keeps 'tp within rack': got the tp group: GPUs 0..11 in rack 0; GPUs 12..15 in rack 1, "
    "expected at most 12 GPUs to use in a rack; such a group spans 16 ranks"
)
WHOLE_RACKS = (
    "rack 0 serves more than one stage: GPUs 0..5 for pp 0; GPUs 6..11 for pp 1, "
    "expected at most 4 racks; 5 runs of 6 ranks take 1 each, 5 in all"
)
TOO_FEW = "at most 12 usable GPUs of 48 installed, 36 of them excluded"
LACKING = (
    "got the tp group at dp 0: GPUs 0..4, 7..11 in rack 0; GPU 12 in rack 1, "
    "expected 44 GPUs for it; 33 can be used with whole groups"
)
IMPOSSIBLE: list[tuple[Mesh, MapRequest, type[ExactmapError], str]] = [
    (Mesh(tp=64), _request(), InfeasibleError, "larger than the cluster: got 64 ranks, expected at most 48"),
    (Mesh(tp=4, dp=4), _request(["rack 0..2"]), InfeasibleError, TOO_FEW),
    (Mesh(tp=16), _request(require=["tp within rack"]), InfeasibleError, WITHIN_RACK),
    (
        Mesh(tp=3, dp=2),
        _request(require=["dp within host"]),
        InfeasibleError,
        "got the dp group at tp 1: GPU 1 in host 0; GPU 4 in host 1",
    ),
    (
        Mesh(tp=11, dp=4),
        _request(["gpu 5", "gpu 6"], ["tp within rack"]),
        InfeasibleError,
        LACKING,
    ),
    (Mesh(tp=6, pp=5), _request(require=["pp stages whole racks"]), InfeasibleError, WHOLE_RACKS),
    (
        Mesh(tp=4, dp=10),
        _request(["gpu 1"], ["dp along rails"]),
        InfeasibleError,
        "got the dp group at tp 0: from GPU 0 (rack 0, rail 0) to GPU 13 (rack 1, rail 1)",
    ),
    (
        Mesh(tp=2),
        _request(["gpu 48"]),
        InvalidInputError,
        "no such gpu to leave out: got gpu 48, expected 0 to 47",
    ),
    (Mesh(tp=2), _request(["host 12"]), InvalidInputError, "no such host to leave out: got host 12"),
    (Mesh(tp=2), _request(["rack 1 tray 3"]), InvalidInputError, "got rack 1 host 3, expected 0 to 2"),
    (Mesh(tp=2), _request(["rack 4..5"]), InvalidInputError, "no such rack to leave out: got rack 4..5"),
    (Mesh(tp=2), _request(["leaf 90"]), InvalidInputError, "no such leaf to leave out: got leaf 90"),
]


@pytest.mark.parametrize(("mesh", "request_", "error", "expected"), IMPOSSIBLE)
def test_impossible_maps(mesh: Mesh, request_: MapRequest, error: type[ExactmapError], expected: str) -> None:
    """48 GPUs in 4 racks of 12: what cannot be laid onto them, and why."""
    cluster = small_cluster(48, 12, 4, 12, rails=4, request=request_)

    with pytest.raises(error) as caught:
        exact_map_of(cluster, mesh)

    assert expected in str(caught.value)


def test_trays_and_rails_where_there_are_none() -> None:
    odd = small_cluster(48, 12, 4, 10, request=_request(spares="trays"))
    with pytest.raises(InvalidInputError, match="a rack cannot leave out whole trays"):
        exact_map_of(odd, Mesh(tp=2))
    plain = small_cluster(48, 12, 4, 12, rails=1, request=_request(require=["dp along rails"]))
    with pytest.raises(InvalidInputError, match="no rails to go along"):
        exact_map_of(plain, Mesh(dp=24))


@pytest.mark.parametrize(
    "text", ["gpu", "gpu x", "gpu 5..3", "rack 1 leaf 2", "gpu 1 2", "gpu 99999999999", "GPU 1"]
)
def test_exclusions_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Exclusion.parse(text)


@pytest.mark.parametrize(
    "text", ["tp", "xp within rack", "tp,tp within rack", "tp stages whole racks", "tp within pod"]
)
def test_constraints_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Constraint.parse(text)


def test_an_array_is_checked_against_its_mesh() -> None:
    """The order of a map is its mesh's own."""
    cluster = replace(CLUSTER, map_request=MapRequest())
    laid = exact_map_of(cluster, Mesh(tp=4, dp=4, order=(Axis.DP, Axis.TP, Axis.CP, Axis.EP, Axis.PP)))

    assert laid.groups([Axis.DP]).gpu[0].tolist() == [0, 1, 2, 3]
    assert np.array_equal(laid.rank_of_gpus()[laid.gpu], np.arange(16))
    assert machine_of(cluster).num_hosts == 13
