"""Read what the programs of nccl-tests print (``all_reduce_perf`` and its kin) as measured curves.

A run begins with its header (``# nThread``, ``# Collective test starting``), lists its ranks with their
hosts, then has a line per size: out-of-place time, algorithm and bus bandwidth, wrong values, and the same
in place. The out-of-place time counts: programs rarely communicate in place. A file may hold many runs, and
lines of other programs between them.

Each line is held against itself, since logs of many ranks get mixed up: bus bandwidth must follow from size
and time. A run that ends before its ``# Avg bus bandwidth`` was cut short. Both are refused with their
line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
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
_PROGRAM = re.compile(r"\b([a-z_]+)_perf\b")
_RANK = re.compile(r"#\s+Rank\s+(\d+)\s+.*?\bon\s+(\S+)\s+device\s+\d+\s+\[[^\]]*\]\s*(.*)")
_VERSION = re.compile(r"NCCL version ([0-9][\w.+-]*)|nccl-library=(\d+)")
_TAG = re.compile(r"^\[[\d,]+\]<std(?:out|err)>:\s?")
_RELATIVE, _ABSOLUTE = 0.02, 0.02
"""How far a bus bandwidth may be from what its line gives, as a share and in GB/s."""


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


class _Reader:
    """Goes through the lines of one file."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.runs: list[NcclRun] = []
        self.program = self._program_in(Path(path).name, 0)
        self.number = 0

    def wrong(
        self, what: str, got: str = "", expected: str = "", line: int | None = None
    ) -> InvalidInputError:
        """Make the error of a line."""
        place = Place(str(self.path), self.number if line is None else line)
        return InvalidInputError(what, where=place, got=got[:100] or None, expected=expected or None)

    def _program_in(self, text: str, line: int) -> str | None:
        for name in _PROGRAM.findall(text):
            if name in _OPS:
                return str(name)
            if line:
                raise self.wrong(
                    "a program of nccl-tests that is not used",
                    f"{name}_perf",
                    ", ".join(f"{op}_perf" for op in _OPS),
                )
        return None

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
        line = _TAG.sub("", text).strip()
        version = _VERSION.search(line)
        if line.startswith("#"):
            self._comment(line)
        elif self.run is not None and self.run.columns and line[:1].isdigit():
            self._row(self.run, line)
        elif _PROGRAM.search(line) and self.run is None:
            # A command that a shell or a script has echoed.
            self.program = self._program_in(line, 0) or self.program
        if version and self.run is not None:
            self.run.version = version[1] or version[2]

    def _comment(self, line: str) -> None:
        if line.startswith(("# nThread", "# Collective test starting", "# nccl-tests version")):
            self.begin()
            if line.startswith("# Collective"):
                self.program = self._program_in(line, self.number)
        rank = _RANK.match(line)
        if rank:
            if self.run is None:
                self.begin()
            assert self.run is not None
            self.run.hosts[int(rank[1])] = rank[2]
            self.run.gpu = rank[3].strip() or self.run.gpu
        elif self.run is not None and {"size", "time", "busbw"} <= set(line.lstrip("# ").split()):
            self._head(self.run, line.lstrip("# ").split())
        elif self.run is not None and line.startswith("# Avg bus bandwidth"):
            if not self.run.points:
                raise self.wrong("a run without sizes", line)
            self.run.ended = True

    def _head(self, run: NcclRun, columns: list[str]) -> None:
        if self.program is None:
            raise self.wrong(
                "which program was run is not said",
                expected="'# Collective test starting: all_reduce_perf', the command, or the file named so",
            )
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
        run.op, run.columns = _OPS[self.program], columns

    def _row(self, run: NcclRun, line: str) -> None:
        cells = line.split()
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
        if size == 0:
            return
        follows = size * _bus_factor(run.op, run.num_ranks) / time_us / 1e3 if time_us > 0 else -1.0
        if time_us <= 0 or abs(bus - follows) > _RELATIVE * follows + _ABSOLUTE:
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
