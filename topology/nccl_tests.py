"""Read what the programs of nccl-tests print (``all_reduce_perf`` and its kin) as measured curves.

A run begins with its header (``# nThread``, ``# Collective test starting``), lists its ranks with their
hosts, then has a line per size: out-of-place time, algorithm and bus bandwidth, wrong values, and the same
in place. The out-of-place time counts: programs rarely communicate in place. A file may hold many runs, and
lines of other programs (``NCCL INFO``, warnings, a launcher's tags) between them. Runs of programs that have
no place in a cluster file (``reduce_perf``, ``scatter_perf``, ...) are passed over.

Each line is held against itself, since logs of many ranks get mixed up: bus bandwidth must follow from size
and time. A run that ends before its ``# Avg bus bandwidth`` was cut short. Both are refused with their
line. Forms: src/common.cu and src/util.cu of github.com/NVIDIA/nccl-tests, 2.0 to 2.20.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from exactmap.errors import InvalidInputError, Place
from exactmap.topology.curves import CurveKey, Curves, Point, make_curves

__all__ = ["NcclRun", "curves_of_runs", "read_nccl_tests"]

_OPS = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "broadcast": "broadcast",
    "sendrecv": "point_to_point",
}
_OTHERS = frozenset(("reduce", "gather", "scatter", "hypercube", "alltoallv"))
_PROGRAM = re.compile(r"\b([a-z_]+)_perf(?:_mpi)?\b")
_RANK = re.compile(r"#\s+Rank\s+(\d+)\s+.*?\bon\s+(\S+)\s+device\s+\d+\s+\[[^\]]*\]\s*(.*)")
_VERSION = re.compile(r"NCCL version ([0-9][\w.+-]*)|nccl-library=(\d+)")
_TAG = re.compile(r"^(?:[^#<]*<std(?:out|err)>:|\[\d+\]|\s*\d+:)\s?")
"""What mpirun, mpiexec and srun put before each line; mpiexec also before each part of one."""
_INNER_TAG = re.compile(r"\[\d+\]")
_ROW = re.compile(r"\d+\s")
_RELATIVE, _ABSOLUTE = 0.02, 0.02
"""How far a bus bandwidth may be from what its line gives, as a share and in GB/s."""
_SHORT = 0.06
"""The same share where a time has two digits only (`1.2e+07`)."""


@dataclass(slots=True)
class NcclRun:
    """One run of one program.

    Parameters
    ----------
    op
        Operation, by our name.
    hosts
        Host of each rank.
    gpu, version
        GPU and library as printed; empty: not said.
    points
        (bytes, time in ns).
    line
        Where it begins.
    """

    op: str
    line: int
    hosts: dict[int, str] = field(default_factory=dict)
    gpu: str = ""
    version: str = ""
    points: list[tuple[int, float]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    ended: bool = False

    @property
    def num_ranks(self) -> int:
        """Ranks of the run."""
        return len(self.hosts)

    @property
    def num_hosts(self) -> int:
        """Hosts of the run."""
        return len(set(self.hosts.values()))


def _bus_factor(op: str, num_ranks: int) -> float:
    if op in {"broadcast", "point_to_point"}:
        return 1.0
    return (2 if op == "all_reduce" else 1) * (num_ranks - 1) / num_ranks


def _release(code: int) -> str:
    """Version of the library as a number, as people write it: 22808 is 2.28.8."""
    return f"{code // 10_000}.{code // 100 % 100}.{code % 100}"


class _Reader:
    """Goes through the lines of one file."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.runs: list[NcclRun] = []
        self.number = 0
        self.program = self._program_in(Path(path).name)
        self.passed: tuple[str, int] | None = None

    def wrong(
        self, what: str, got: str = "", expected: str = "", line: int | None = None
    ) -> InvalidInputError:
        """Make the error of a line."""
        place = Place(str(self.path), self.number if line is None else line)
        return InvalidInputError(what, where=place, got=got[:100] or None, expected=expected or None)

    def _program_in(self, text: str) -> str | None:
        names = [str(name) for name in _PROGRAM.findall(text)]
        return next((name for name in names if name in _OPS or name in _OTHERS), None)

    @property
    def run(self) -> NcclRun | None:
        """The run that is open."""
        return self.runs[-1] if self.runs and not self.runs[-1].ended else None

    def begin(self) -> None:
        """Open a run, unless its header is being read already."""
        if self.run is not None and not self.run.hosts and not self.run.columns:
            return
        self.end_check()
        self.runs.append(NcclRun("", self.number))

    def end_check(self) -> None:
        """An open run was cut short."""
        if self.run is not None:
            raise self.wrong(
                "a run is cut short",
                f"the run of line {self.run.line} with {len(self.run.points)} sizes",
                "a last line '# Avg bus bandwidth'",
            )

    def read(self, text: str) -> None:
        """Take one line."""
        line = _TAG.sub("", text, count=1).strip()
        version = _VERSION.search(line)
        if line.startswith("#"):
            self._comment(line)
        elif self.run is not None and self.run.columns and _ROW.match(f"{line} "):
            self._row(self.run, line)
        elif self.run is None:
            # A command that a shell or a script has echoed.
            self.program = self._program_in(line) or self.program
        if version and self.run is not None:
            self.run.version = version[1] or _release(int(version[2]))

    def _comment(self, line: str) -> None:
        if line.startswith(("# nThread", "# Collective test starting", "# nccl-tests version")):
            self.begin()
            if line.startswith("# Collective"):
                self.program = self._program_in(line)
        rank = _RANK.match(line)
        if rank:
            if self.run is None:
                self.begin()
            assert self.run is not None
            self.run.hosts[int(rank[1])] = rank[2]
            self.run.gpu = rank[3].strip() or self.run.gpu
        elif self.run is not None and {"size", "algbw", "busbw"} <= set(line.lstrip("# ").split()):
            self._head(self.run, line.lstrip("# ").split())
        elif self.run is not None and line.startswith("# Avg bus bandwidth"):
            self._end(self.run, line)

    def _end(self, run: NcclRun, line: str) -> None:
        run.ended = True
        if self.program in _OTHERS:
            self.passed = f"{self.program}_perf", run.line
            self.runs.pop()
        elif not run.points:
            raise self.wrong("a run without sizes", line)

    def _head(self, run: NcclRun, columns: list[str]) -> None:
        if self.program is None:
            raise self.wrong(
                "which program was run is not said",
                expected="'# Collective test starting: all_reduce_perf', the command, or the file named so",
            )
        if "time" not in columns:
            raise self.wrong("a run that timed the CPU", " ".join(columns), "a column 'time': leave out -C")
        missing = sorted(set(range(max(run.hosts, default=-1) + 1)) - set(run.hosts))
        if run.num_ranks < 2 or missing:
            raise self.wrong(
                "the ranks of a run are not all listed",
                f"{run.num_ranks} '# Rank' lines" + (f", rank {missing[0]} missing" if missing else ""),
                "one per rank, 2 or more",
            )
        shares = set(Counter(run.hosts.values()).values())
        if len(shares) > 1:
            raise self.wrong(
                "hosts of a run have unequal numbers of ranks", ", ".join(map(str, sorted(shares)))
            )
        run.op, run.columns = _OPS.get(self.program, ""), columns

    def _row(self, run: NcclRun, line: str) -> None:
        cells = _INNER_TAG.sub(" ", line).split()
        if run.columns[-1] == "timestamp":
            # Day and time of day are two words.
            cells = [*cells[:-2], " ".join(cells[-2:])]
        if len(cells) != len(run.columns):
            raise self.wrong(
                "a line is cut short or holds two",
                line,
                f"{len(run.columns)} columns: {' '.join(run.columns)}",
            )
        first = {name: cells[run.columns.index(name)] for name in ("size", "time", "busbw")}
        wrong = next((cells[run.columns.index(name)] for name in ("#wrong",) if name in run.columns), "0")
        try:
            size, time_us, bus = int(first["size"]), float(first["time"]), float(first["busbw"])
        except ValueError:
            raise self.wrong("a line holds no numbers", line) from None
        if wrong not in {"0", "N/A"}:
            raise self.wrong("a result with wrong values", f"#wrong {wrong}", "0 or N/A")
        if size == 0 or not run.op:
            return
        follows = size * _bus_factor(run.op, run.num_ranks) / time_us / 1e3 if time_us > 0 else -1.0
        share = _SHORT if "e" in first["time"] else _RELATIVE
        if not isfinite(time_us) or time_us <= 0 or not abs(bus - follows) <= share * follows + _ABSOLUTE:
            raise self.wrong(
                "a line contradicts itself",
                line,
                f"a bus bandwidth of {follows:.2f} GB/s from size and time"
                if follows >= 0
                else "a time above 0",
            )
        run.points.append((size, time_us * 1e3))


def read_nccl_tests(text: str, path: str | Path) -> list[NcclRun]:
    """Read all runs of a file.

    Parameters
    ----------
    text
        What was printed.
    path
        Where it stands; a name like ``all_gather_perf.txt`` tells what an old program's output does not.

    Raises
    ------
    InvalidInputError
        If there is no run, one is cut short, or a line is garbled or holds wrong results; with file and line.
    """
    reader = _Reader(path)
    for number, line in enumerate(text.splitlines(), 1):
        reader.number = number
        reader.read(line)
    reader.end_check()
    if not reader.runs and reader.passed is not None:
        name, reader.number = reader.passed
        raise reader.wrong(
            "a program of nccl-tests that is not used", name, ", ".join(f"{op}_perf" for op in _OPS)
        )
    if not reader.runs:
        raise InvalidInputError(
            "not output of nccl-tests",
            where=Place(str(path)),
            expected="lines such as '# nThread 1 nGpus 8 minBytes ...' and a table of sizes",
        )
    return reader.runs


def curves_of_runs(
    runs: Iterable[NcclRun], path: str | Path, *, name: str, gpus_per_host: int, domain_size: int
) -> Curves:
    """Turn runs into curves of a cluster: hosts are gathered into its scale-up domains.

    Parameters
    ----------
    runs
        What `read_nccl_tests` returned.
    path
        Where it was read.
    name
        GPU type.
    gpus_per_host, domain_size
        Of the cluster.
    """
    hosts_per_domain = max(1, domain_size // gpus_per_host)
    points: list[Point] = []
    releases: list[str] = []
    for run in runs:
        num_domains = -(-run.num_hosts // hosts_per_domain)
        if run.num_ranks // run.num_hosts > gpus_per_host or run.num_ranks % num_domains:
            raise InvalidInputError(
                "a run does not fit the cluster",
                where=Place(str(path), run.line),
                got=f"{run.num_ranks} ranks on {run.num_hosts} hosts",
                expected=f"at most {gpus_per_host} ranks per host, as many in each domain of {domain_size}",
            )
        key = CurveKey(run.op, run.num_ranks, num_domains)
        points += [Point(key, size, time_ns) for size, time_ns in run.points]
        releases.append(f"NCCL {run.version}" if run.version else "NCCL")
    return make_curves(name, ", ".join(sorted(set(releases))), points, (str(path),))
