"""Output of nccl-tests becomes curves of a cluster; what is garbled or cut short is refused with its line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.cluster_document import cluster_document
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.topology.catalog import catalog_path
from exactmap.topology.collectives import Collective, Confidence, collective_time
from exactmap.topology.curves import CurveKey, read_curves
from exactmap.topology.mapping import GroupShape
from exactmap.topology.nccl_tests import curves_of_runs, read_nccl_tests

HEAD = """\
#                                                out-of-place                       in-place
#       size         count    type redop root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                        (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""
RACK = """\
   536870912     134217728   float   sum   -1   1806.7  297.16  586.06      0   1835.9  292.43  576.74      0
  1073741824     268435456   float   sum   -1   3108.8  345.38  681.17      0   2924.7  367.13  724.06      0
  2147483648     536870912   float   sum   -1   5589.1  384.22  757.78      0   5474.6  392.26  773.62      0
  4294967296    1073741824   float   sum   -1    10094  425.49  839.16      0    10141  423.54  835.32      0
"""
"""72 GB200, github.com/coreweave/nccl-tests pull 43."""
TAIL = "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 745.53\n#\n"


def _ranks(count: int, per_host: int) -> str:
    return "# Using devices\n" + "".join(
        f"#  Rank {rank:2d} Group  0 Pid  {14000 + rank} on node-{rank // per_host} device  "
        f"{rank % per_host} [0x01] NVIDIA GB200\n"
        for rank in range(count)
    )


def _run(
    rows: str = RACK, *, op: str = "all_reduce", ranks: int = 72, per_host: int = 4, tail: str = TAIL
) -> str:
    return (
        "# nccl-tests version 2.17.6 nccl-headers=22808 nccl-library=22808\n"
        f"# Collective test starting: {op}_perf\n"
        "# nThread 1 nGpus 1 minBytes 8 maxBytes 8589934592 step: 2(factor) warmup iters: 5 iters: 20\n#\n"
        f"{_ranks(ranks, per_host)}#\n{HEAD}{rows}{tail}"
    )


def _row(size: int, micros: float, bus: float) -> str:
    out_of_place = f"{micros} {size / micros / 1e3:.2f} {bus:.2f} 0"
    return f"{size} {size // 4} float sum -1 {out_of_place} {micros} 1.00 1.00 N/A\n"


def test_a_run_of_a_rack_is_read_whole() -> None:
    """Operation, ranks, hosts, library and the out-of-place times."""
    (run,) = read_nccl_tests(_run(), "rack.txt")

    assert (run.op, run.num_ranks, run.num_hosts, run.gpu) == ("all_reduce", 72, 18, "NVIDIA GB200")
    assert run.version == "2.28.8"
    assert run.points[0] == (536870912, 1_806_700.0)
    assert len(run.points) == 4


def test_many_runs_in_one_file_with_lines_of_others_between() -> None:
    """A job's log: mpirun's tags, warnings of libraries, two programs one after the other."""
    gather = _run(_row(2**20, 20.0, 2**20 * 0.75 / 20e3), op="all_gather", ranks=4)
    text = "+ srun ./build/all_reduce_perf -b 8\nlibfoo.so: warning\n" + _run() + "Bye\n" + gather
    tagged = "".join(f"[1,0]<stdout>:{line}\n" for line in text.splitlines())

    for each in (text, tagged):
        assert [run.op for run in read_nccl_tests(each, "job.log")] == ["all_reduce", "all_gather"]


def test_old_output_is_known_by_its_file() -> None:
    """Before 2.14 the program does not say its name; columns were fewer."""
    old = (
        f"# nThread 1 nGpus 8\n{_ranks(8, 8)}"
        "#     size       count    type  redop    time  algbw  busbw  error    time  algbw  busbw  error\n"
        "   1048576      262144   float    sum   93.00  11.28  19.73  2e-07   92.00  11.40  19.95  2e-07\n"
        + TAIL
    )

    assert read_nccl_tests(old, "all_reduce_perf.txt")[0].points == [(1048576, 93_000.0)]
    with pytest.raises(InvalidInputError, match=r"out\.txt:11: which program was run is not said"):
        read_nccl_tests(old, "out.txt")


def test_what_other_programs_print_between_the_rows() -> None:
    """Debug lines of hosts whose names begin with digits, dated warnings, a counter; none is a row."""
    noise = (
        "10.0.0.7:21:33 [3] NCCL INFO Channel 00/24 : 0 1 2 3\n"
        "node-3:123:456 [0] NCCL INFO comm 0x55d rank 3 nranks 72 cudaDev 3 - Init COMPLETE\n"
        "2025-06-02 12:00:00,123 WARNING clock is off\n"
        "\n"
    )
    rows = RACK.splitlines(keepends=True)
    text = _run(noise.join(rows) + noise)

    assert read_nccl_tests(text, "job.log")[0].points == read_nccl_tests(_run(), "job.log")[0].points


@pytest.mark.parametrize("tag", ["[1,0]<stdout>:", "[prterun-head-71@1,0]<stdout>: ", "[0] ", " 0: ", "00: "])
def test_tags_of_launchers(tag: str) -> None:
    """Of mpirun 4 and 5, mpiexec, and srun with --label."""
    text = "".join(f"{tag}{line}\n" for line in _run().splitlines())

    assert read_nccl_tests(text, "job.log")[0].points == read_nccl_tests(_run(), "job.log")[0].points


def test_tags_inside_of_a_row() -> None:
    """What was flushed is tagged by mpiexec, and a row is flushed in three parts."""
    row = "[0]  1048576  262144  float  sum  -1[0]  93.00  11.28  19.73  0[0]  92.00  11.40  19.95  0\n"

    assert read_nccl_tests(_run(row, ranks=8), "job.log")[0].points == [(1048576, 93_000.0)]


def test_other_columns() -> None:
    """The time of day, times of iterations, no check of values, a type of half the width, sizes of zero."""
    bus = 2**20 * 1.75 / 93e3
    head = HEAD.replace("#wrong\n", "#wrong           timestamp\n")
    dated = _run(ranks=8).replace(HEAD, head)
    row = f"1048576 524288 half sum -1 93.00 11.28 {bus:.2f} N/A 92.00 11.40 19.95 N/A"
    zero = "0 0 half sum -1 4.10 0.00 0.00 N/A 4.20 0.00 0.00 N/A"
    days = " 2025-06-02 12:00:00\n"
    spread = HEAD.replace("#wrong", "#wrong i_min i_max i_p99 i_cv%")
    long = (
        f"1048576 524288 half sum -1 93.00 11.28 {bus:.2f} 0 90 95 95 1.0 92.00 11.40 19.95 0 90 95 95 1.0\n"
    )
    texts = (
        dated.replace(RACK, f"{zero}{days}{row}{days}"),
        _run(long, ranks=8).replace(HEAD, spread),
        _run(f"{zero}\n{row}\n", ranks=8),
    )

    for text in texts:
        assert read_nccl_tests(text, "job.log")[0].points == [(1048576, 93_000.0)]


def test_ten_seconds_have_two_digits() -> None:
    """`%7.1e` from 10,000,000 us on: the bus bandwidth knows better than the time."""
    size = 2**40
    out_of_place = f"1.2e+07 {size / 1.24e10:.2f} {size * 1.75 / 1.24e10:.2f} 0"
    row = f"{size} {size // 4} float sum -1 {out_of_place} 1.2e+07 1 1 0\n"

    assert read_nccl_tests(_run(row, ranks=8), "job.log")[0].points == [(size, 1.2e10)]


def test_programs_that_have_no_use_are_passed_over() -> None:
    """A sweep of all programs in one log; old ones are known by their command alone."""
    gather = _row(2**20, 20.0, 2**20 * 0.75 / 20e3)
    sweep = _run() + _run(gather, op="scatter", ranks=4) + _run(gather, op="all_gather", ranks=4)
    new = read_nccl_tests(sweep.replace("all_gather_perf", "all_gather_perf_mpi"), "job.log")
    old = "".join(
        f"+ ./build/{op}_perf -b 1M -e 1M\n"
        + _run(gather, ranks=4).replace("# Collective test starting: all_reduce_perf\n", "")
        for op in ("all_gather", "gather")
    )

    assert [run.op for run in new] == ["all_reduce", "all_gather"]
    assert [run.op for run in read_nccl_tests(old, "job.log")] == ["all_gather"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not output of nccl-tests"),
        ("step 1 loss 2.5\n", "not output of nccl-tests"),
        (_run(tail=""), r"f\.txt:\d+: a run is cut short: got the run of line 1 with 4 sizes"),
        (_run() + _run(tail="")[:2000], "a run is cut short"),
        (_run(RACK[:-20] + "\n"), r"f\.txt:85: a line is cut short or holds two"),
        (_run(RACK.replace("\n  1073741824", "  1073741824")), "a line is cut short or holds two"),
        (_run(RACK.replace("1806.7", "180.67")), r"f\.txt:82: a line contradicts itself.*5860.57 GB/s"),
        (_run(RACK.replace("1806.7", "18o6.7")), "a line holds no numbers"),
        (_run(RACK.replace("586.06      0", "586.06      7")), "wrong values: got #wrong 7"),
        (_run(""), "a run without sizes"),
        (_run().replace("#  Rank  5", "#  Rnk  5"), "rank 5 missing"),
        (_run().replace("on node-17", "on node-16"), "unequal numbers of ranks"),
        (_run(op="hypercube"), r"f\.txt:1: a program of nccl-tests that is not used: got hypercube_perf"),
        (_run(op="magic"), "which program was run is not said"),
        (_run(RACK.replace("1806.7", "   inf")), "a line contradicts itself"),
        (_run(RACK.replace("1806.7", "   nan")), "a line contradicts itself"),
        (_run().replace("    time ", " cputime "), "a run that timed the CPU"),
        (_run(RACK.replace("\n  1073741824", "\n10737")), "a line contradicts itself"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(text: str, message: str) -> None:
    """Never half a table, never a guess."""
    with pytest.raises(InvalidInputError, match=message):
        read_nccl_tests(text, "f.txt")


def test_hosts_are_gathered_into_domains() -> None:
    """18 trays of 4 are a rack; 2 hosts of 8 are two domains; 8 ranks do not fit a tray of 4."""
    rack = curves_of_runs(read_nccl_tests(_run(), "f"), "f", name="GB200", gpus_per_host=4, domain_size=72)
    two = _run(_row(2**30, 4567.0, 2**30 * 1.875 / 4567e3), ranks=16, per_host=8)
    hosts = curves_of_runs(read_nccl_tests(two, "f"), "f", name="H100", gpus_per_host=8, domain_size=8)

    assert list(rack.by_key) == [CurveKey("all_reduce", 72, 1)]
    assert list(hosts.by_key) == [CurveKey("all_reduce", 16, 2)]
    with pytest.raises(InvalidInputError, match="a run does not fit the cluster"):
        curves_of_runs(read_nccl_tests(two, "f"), "f", name="GB200", gpus_per_host=4, domain_size=72)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A GB200 rack with a run of its own."""
    (tmp_path / "rack.txt").write_text(_run(), encoding="utf-8")
    path = tmp_path / "my.yaml"
    path.write_text(
        catalog_path("gb200-nvl72").read_text(encoding="utf-8") + "collectives: [rack.txt]\n",
        encoding="utf-8",
    )
    return path


def test_a_cluster_is_as_fast_as_its_owner_measured(own: Path) -> None:
    """Inside the sizes the run's times; beyond them its ratio to the model fades."""
    mine, catalog = load_cluster(own), load_cluster("gb200-nvl72")
    rack = GroupShape(72, 72, 1)

    inside = collective_time(mine, Collective.ALL_REDUCE, rack, 2**30)
    assert inside.time_ns == 3_108_800
    assert inside.confidence is Confidence.MEASURED
    before = [collective_time(each, Collective.ALL_REDUCE, rack, 2**28).time_ns for each in (mine, catalog)]
    assert before[0] > 1.2 * before[1]
    ends = [collective_time(mine, Collective.ALL_REDUCE, rack, 2**32 + extra).time_ns for extra in (0, 4096)]
    assert ends[1] == pytest.approx(ends[0], rel=1e-3)
    # What was not measured stays the catalog's.
    gathers = [collective_time(each, Collective.ALL_GATHER, rack, 2**30).time_ns for each in (mine, catalog)]
    assert gathers[0] == gathers[1]


def test_a_run_over_hosts_calibrates_groups_over_hosts(tmp_path: Path) -> None:
    """16 H100 that are a third slower than the model make 32 slower too, by less."""
    catalog = load_cluster("h100-8")
    shape, wider = GroupShape(16, 8, 2), GroupShape(32, 8, 4)
    micros = 1.5 * collective_time(catalog, Collective.ALL_REDUCE, shape, 2**30).time_ns / 1e3
    text = _run(_row(2**30, round(micros, 1), 2**30 * 1.875 / micros / 1e3), ranks=16, per_host=8)
    (tmp_path / "two.txt").write_text(text, encoding="utf-8")
    path = tmp_path / "my.yaml"
    path.write_text(
        catalog_path("h100-8").read_text(encoding="utf-8") + "collectives: [two.txt]\n", encoding="utf-8"
    )
    mine = load_cluster(path)

    slower = [
        collective_time(mine, Collective.ALL_REDUCE, each, 2**30).time_ns
        / collective_time(catalog, Collective.ALL_REDUCE, each, 2**30).time_ns
        for each in (shape, wider)
    ]
    assert slower[0] == pytest.approx(1.5, rel=1e-3)
    assert 1.05 < slower[1] < 1.5


def test_links_are_busy_no_longer_than_a_fast_run_took(tmp_path: Path) -> None:
    """16 H100 that are twice as fast as the model: the whole is halved, so no part of it is longer."""
    shape = GroupShape(16, 8, 2)
    micros = round(
        0.5 * collective_time(load_cluster("h100-8"), Collective.ALL_GATHER, shape, 2**30).time_ns / 1e3, 1
    )
    (tmp_path / "two.csv").write_text(
        f"\ufeffgpu,op,ranks,domains,bytes,us\nH100,all_gather,16,2,{2**30},{micros}\n", encoding="utf-8"
    )
    path = tmp_path / "my.yaml"
    path.write_text(
        catalog_path("h100-8").read_text(encoding="utf-8") + "collectives: [two.csv]\n", encoding="utf-8"
    )
    time = collective_time(load_cluster(path), Collective.ALL_GATHER, shape, 2**30)

    assert time.time_ns == pytest.approx(micros * 1e3, abs=2)
    assert max(time.scale_up_ns, time.scale_out_ns) <= time.time_ns


def test_a_written_out_cluster_names_its_measurements(own: Path) -> None:
    """`check --print-config` gives a cluster that reads the same files."""
    mine = load_cluster(own)

    assert cluster_document(mine)["collectives"] == [str(own.parent / "rack.txt")]


def test_problems_of_a_file_are_those_of_the_cluster(own: Path) -> None:
    """A missing file is named where it is asked for, a broken one at its own line."""
    (own.parent / "rack.txt").write_text(_run(tail=""), encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"rack\.txt:85: a run is cut short"):
        load_cluster(own)
    (own.parent / "rack.txt").unlink()
    with pytest.raises(InvalidInputError, match=r"rack\.txt"):
        load_cluster(own)


def test_a_table_of_the_catalogs_form(tmp_path: Path) -> None:
    """The same columns, and one more for domains; another GPU's table is refused."""
    text = "# mine\ngpu,op,ranks,domains,bytes,us\nGB200,all_gather,144,2,1048576,200\n"

    assert read_curves(text, "t.csv")["GB200"].by_key[CurveKey("all_gather", 144, 2)].time_ns == (200_000.0,)
    (tmp_path / "t.csv").write_text(text.replace("GB200", "TPU"), encoding="utf-8")
    path = tmp_path / "my.yaml"
    path.write_text(
        catalog_path("gb200-nvl72").read_text(encoding="utf-8") + "collectives: [t.csv]\n", encoding="utf-8"
    )
    with pytest.raises(InvalidInputError, match="no collectives of this GPU: got TPU, expected GB200"):
        load_cluster(path)
    (tmp_path / "t.csv").write_text(text.replace(",144,2,", ",144,1,"), encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"a measured group does not fit the cluster: .*at most 72"):
        load_cluster(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", r"t\.csv:1: not a table of collectives"),
        ("gpu,op,ranks,bytes,us\n", "without points"),
        ("gpu,op,ranks,bytes,us\nH100,all_reduce,8,1024\n", r"t\.csv:2: a line of the table is cut short"),
        ("gpu,op,ranks,bytes,us\nH100,all_reduce,eight,1024,3\n", "holds no numbers"),
        ("gpu,op,ranks,bytes,us\nH100,all_reduce,1,1024,3\n", "out of range"),
        ("gpu,op,ranks,bytes,us\nH100,all_reduce,8,1024,nan\n", "out of range"),
        ("gpu,op,ranks,bytes,us\nH100,all_reduce,8,1024,1e300\n", "out of range"),
        ("gpu,op,ranks,bytes,us\nH100,all_reduce,8,1024,1e-300\n", "out of range"),
        ("gpu,op,ranks,bytes,us\nH100,all_reduce,8,99999999999999999999,3\n", "out of range"),
        ("gpu,op,ranks,bytes,us\nH100,scan,8,1024,3\n", "unknown operation"),
    ],
)
def test_a_broken_table_is_refused(text: str, message: str) -> None:
    """With file and line."""
    with pytest.raises(InvalidInputError, match=message):
        read_curves(text, "t.csv")


def test_a_scenario_names_measurements_too(tmp_path: Path) -> None:
    """`cluster: {catalog: ..., collectives: [...]}`, relative to the scenario; a copy forgets prices."""
    (tmp_path / "rack.txt").write_text(_run(), encoding="utf-8")
    scenario = tmp_path / "s.yaml"
    scenario.write_text(
        "exactmap: 1\ncluster: {catalog: gb200-nvl72, collectives: [rack.txt]}\nmodel: gpt2\n"
        "training: {sequence: 1024, batch: 64 sequences}\n",
        encoding="utf-8",
    )
    mine = load_scenario(scenario).cluster
    rack = GroupShape(72, 72, 1)

    assert collective_time(mine, Collective.ALL_REDUCE, rack, 2**31).time_ns == 5_589_100
    without = replace(mine, collectives=None)
    assert collective_time(without, Collective.ALL_REDUCE, rack, 2**31).time_ns < 5_200_000
    assert collective_time(mine, Collective.ALL_REDUCE, rack, 2**31).time_ns == 5_589_100
