"""The plan as typed data: header declarations and programs.

Text form, meaning and checks: `docs/reference/plan-format.md`. These classes hold what the text says and
check nothing; `exactmap.sim.plan.reader` reads, `writer` writes, `check` gives the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from exactmap.sim.plan.instruction import Instruction
from exactmap.sim.plan.table import InstructionTable

__all__ = [
    "Arena",
    "Bucket",
    "Channel",
    "Group",
    "MapLine",
    "MeshDims",
    "Plan",
    "PlanModel",
    "PlanStage",
    "PlanTrain",
    "Pool",
    "Precision",
    "Program",
    "Region",
    "Tie",
]


@dataclass(frozen=True, slots=True)
class PlanModel:
    """Dimensions of a decoder-only transformer; kind `gpt` or `llama`."""

    kind: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    positions: int
    tied: bool
    eps: float
    theta: float


@dataclass(frozen=True, slots=True)
class PlanTrain:
    """Numbers of one training step and of its optimizer; `microbatch` in sequences, `seq` in tokens."""

    microbatch: int
    m: int
    seq: int
    slices: int
    optimizer: str
    lr: float
    lr_min: float
    warmup: int
    steps: int
    beta1: float
    beta2: float
    eps: float
    decay: float
    clip: float
    seed: int


@dataclass(frozen=True, slots=True)
class Precision:
    """Data type of each tensor class, as dtype words (`f32`, `bf16`, ..)."""

    param: str = "f32"
    grad: str = "f32"
    act: str = "f32"
    comm: str = "f32"
    moment: str = "f32"


@dataclass(frozen=True, slots=True)
class MeshDims:
    """Sizes of the five mesh axes; `order` names them, fastest first."""

    tp: int
    cp: int
    ep: int
    pp: int
    dp: int
    order: tuple[str, ...] = ("tp", "cp", "ep", "pp", "dp")


@dataclass(frozen=True, slots=True)
class PlanStage:
    """Layers `first..last` (both included; first = -1: none) and what else the stage holds."""

    first: int
    last: int
    embedding: bool = False
    head: bool = False
    parts: tuple[str, ...] = ()

    @property
    def num_layers(self) -> int:
        """Number of transformer layers."""
        return 0 if self.first < 0 else self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Channel:
    """One direction between two pipeline ranks; `cls` is `F` or `B`, `bytes` those of one message."""

    name: str
    src: int
    dst: int
    cls: str
    depth: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Group:
    """Communicator by mesh axes; `pp`: its pipeline ranks (empty: all), `scan`: ``""``, ``up``, ``down``."""

    name: str
    axes: tuple[str, ...]
    pp: tuple[int, ...] = ()
    scan: str = ""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Parameters of stage `stage` that are reduced and stepped together; `elements` with padding."""

    stage: int
    index: int
    holds: tuple[str, ...]
    elements: int
    shard: str = ""
    reduce: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tie:
    """Two buckets, as (stage, index), that hold copies of one parameter."""

    first: tuple[int, int]
    second: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Arena:
    """All bytes that a pipeline rank takes at load."""

    pp: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Region:
    """A fixed part of a rank's arena: params, grads, moments, staging or workspace."""

    pp: int
    kind: str
    bytes: int
    at: int


@dataclass(frozen=True, slots=True)
class Pool:
    """`num` slots of `bytes` each at `at + i*bytes` of the arena; `letter` is one of h a w g k p q o."""

    pp: int
    letter: str
    num: int
    bytes: int
    at: int


@dataclass(frozen=True, slots=True)
class MapLine:
    """Binds pipeline rank `pp` (of replica `dp`, or of all: -1) to a program."""

    pp: int
    dp: int
    program: str


class Program:
    """Instructions of one pipeline rank, as objects or as columns: each is made from the other when asked.

    Parameters
    ----------
    name
        Its name on the map lines.
    instructions
        The instructions in order, or their table.
    lines
        `lines[i]`: line of instruction i in its file; empty without a file.
    """

    __slots__ = ("_instructions", "_table", "lines", "name")

    def __init__(
        self, name: str, instructions: Sequence[Instruction] | InstructionTable, lines: Sequence[int] = ()
    ) -> None:
        self.name = name
        self.lines = lines if isinstance(lines, tuple | range) else tuple(lines)
        self._table: InstructionTable | None = None
        self._instructions: tuple[Instruction, ...] | None = None
        if isinstance(instructions, InstructionTable):
            self._table = instructions
        else:
            self._instructions = tuple(instructions)

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """The instructions as objects."""
        if self._instructions is None:
            assert self._table is not None
            self._instructions = tuple(self._table)
        return self._instructions

    @property
    def table(self) -> InstructionTable:
        """The instructions as columns."""
        if self._table is None:
            assert self._instructions is not None
            self._table = InstructionTable.of(self._instructions)
        return self._table

    def __len__(self) -> int:
        """Number of instructions, END included."""
        return len(self._instructions) if self._instructions is not None else len(self.table)

    def __eq__(self, other: object) -> bool:
        """Equal names and instructions; lines do not count."""
        if not isinstance(other, Program):
            return NotImplemented
        return self.name == other.name and self.instructions == other.instructions

    def __hash__(self) -> int:
        """By name and length."""
        return hash((self.name, len(self)))

    def __repr__(self) -> str:
        """Name and length."""
        return f"Program({self.name!r}, {len(self)} instructions)"


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole plan. Information lines are kept as ordered (key, value) pairs."""

    model: PlanModel
    train: PlanTrain
    precision: Precision
    mesh: MeshDims
    stages: tuple[PlanStage, ...]
    place: tuple[tuple[int, ...], ...]
    clock: str
    serial: bool
    limit: int
    channels: tuple[Channel, ...]
    groups: tuple[Group, ...]
    buckets: tuple[Bucket, ...]
    arenas: tuple[Arena, ...]
    regions: tuple[Region, ...]
    pools: tuple[Pool, ...]
    maps: tuple[MapLine, ...]
    programs: tuple[Program, ...]
    ties: tuple[Tie, ...] = ()
    couple: tuple[tuple[str, tuple[str, ...]], ...] = ()
    budget: int = -1  #: bytes per rank, -1: none given
    made: tuple[tuple[str, str], ...] = ()
    cost: tuple[tuple[str, int], ...] = ()
    pred: tuple[tuple[str, str], ...] = ()
    extras: tuple[str, ...] = ()  #: whole `x-..` lines
    minor: int = 0
    stage_numbers: tuple[int, ...] = field(default=(), compare=False, repr=False)
    """Numbers on the stage lines as a file gave them; empty: 0, 1, 2, .."""
    place_numbers: tuple[int, ...] = field(default=(), compare=False, repr=False)
    """Stage numbers on the place line as a file gave them; empty: 0, 1, 2, .."""
    header_lines: dict[tuple[str, int], int] = field(default_factory=dict, compare=False, repr=False)
    """(kind of line, its index among its kind) -> line in the file; empty for plans made in memory."""

    def program(self, pp: int, dp: int = 0) -> Program:
        """The program of pipeline rank `pp` in replica `dp`."""
        name = ""
        for line in self.maps:
            if line.pp == pp and line.dp in (-1, dp):
                name = line.program
        for program in self.programs:
            if program.name == name:
                return program
        raise KeyError((pp, dp))

    def line_of(self, kind: str, index: int = 0) -> int:
        """Line of the `index`-th header line of a kind, or 0 for a plan that did not come from a file."""
        return self.header_lines.get((kind, index), 0)

    def replica_classes(self) -> tuple[int, ...]:
        """-1 for all replicas without own programs (absent when there are none), then each override."""
        own = sorted({line.dp for line in self.maps if line.dp >= 0})
        return (*(() if len(own) >= self.mesh.dp else (-1,)), *own)
