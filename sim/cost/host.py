"""What ``exactmap calibrate`` measures on a host, and the file that holds it: ``hardware-profile.json``.

The engine's passes are its own code on one thread per rank, and what they take depends on caches, on the
BLAS and on what the other ranks do at the same time. So the measurement is of the engine's own whole passes
rather than of matrix products that would have to be put together again: one layer, the embedding and the
head, each in F, I, W and B, on a grid of shapes, with as many ranks busy at once as plans will have. Beside
them: the optimizer's update and the sum of squares by number of parameters, the hand-over between two ranks
by bytes, the sum over replicas by ranks and bytes, and the cost of one instruction of the interpreter.
The engine measures all of it itself (``exactmap-run --time-ops``).

A shape that was measured is looked up. The same dimensions with another number of tokens are interpolated.
Anything else is priced by its FLOPs at the rate that passes of the same kind and about as many FLOPs
reached.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exactmap.errors import InvalidInputError, Place

__all__ = [
    "HOST_SCHEMA_VERSION",
    "AllReduceTime",
    "BytesTime",
    "ElementsTime",
    "HandOver",
    "HostFacts",
    "HostProfile",
    "PassSample",
    "read_host_profile",
]

HOST_SCHEMA_VERSION = 1

_MAX_SIZE_BYTES = 16 * 2**20
_Count = Annotated[int, Field(ge=1)]
_Ns = Annotated[int, Field(ge=0)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PassSample(_Entry):
    """Median time of one pass over one part, for a microbatch of `microbatch` x `seq` tokens on one rank.

    ``part`` is ``layer`` (one layer), ``embedding`` or ``head`` (final norm, head and loss). All dimensions
    are those of the model that was run; those that a part does not depend on are kept for the record.
    """

    part: Literal["layer", "embedding", "head"]
    step: Literal["F", "I", "W", "B"]
    kind: Literal["gpt", "llama"]
    hidden: _Count
    heads: _Count
    kv_heads: _Count
    head_dim: _Count
    ffn: _Count
    vocab: _Count
    seq: _Count
    microbatch: _Count
    ns: Annotated[int, Field(ge=1)]

    @property
    def tokens(self) -> int:
        """Tokens of the microbatch."""
        return self.seq * self.microbatch


class ElementsTime(_Entry):
    """Time of an operation over so many parameters."""

    elements: _Count
    ns: _Ns


class BytesTime(_Entry):
    """Time of moving so many bytes from one rank to another, the copy alone."""

    bytes: _Count
    ns: _Ns


class HandOver(_Entry):
    """Time of telling another rank that a message is ready.

    ``post_ns`` is what it takes the sender, ``wake_ns`` what passes from then until the receiver goes on.
    """

    post_ns: _Ns
    wake_ns: _Ns


class AllReduceTime(_Entry):
    """Time of summing a buffer of so many bytes over so many ranks, all waiting."""

    ranks: Annotated[int, Field(ge=2)]
    bytes: _Count
    ns: _Ns


class HostFacts(_Entry):
    """Which host and program were measured; for the reader, and to warn on another host.

    ``others_share`` is the share of the cores that other processes took meanwhile: a host that was not left
    alone looks slower than it is.
    """

    cpu: str
    num_cores: _Count
    blas: str
    engine: str
    others_share: Annotated[float, Field(ge=0, le=1)] = 0.0


class HostProfile(_Entry):
    """One host, measured.

    Parameters
    ----------
    schema_version, kind
        What the document is.
    host
        Which host.
    ranks_at_once
        Ranks that were busy at the same time while passes were measured.
    passes
        Times of passes.
    optimizer, norm
        AdamW's update and the sum of squares of the gradients.
    copies
        Copies between ranks by size.
    awake, asleep
        What a send takes where its receiver is watching for it, and where it fell asleep.
    all_reduce
        Sums over replicas.
    instruction_ns
        What the interpreter adds to each instruction.
    """

    schema_version: Literal[1] = 1
    kind: Literal["hardware-profile"] = "hardware-profile"
    host: HostFacts
    ranks_at_once: _Count
    passes: tuple[PassSample, ...] = Field(min_length=1)
    optimizer: tuple[ElementsTime, ...] = Field(min_length=1)
    norm: tuple[ElementsTime, ...] = ()
    copies: tuple[BytesTime, ...] = Field(min_length=1)
    awake: HandOver
    asleep: HandOver
    all_reduce: tuple[AllReduceTime, ...] = ()
    instruction_ns: _Ns

    def to_json(self) -> str:
        """Write the profile as a JSON document; `read_host_profile` reads it back to an equal profile."""
        return self.model_dump_json(indent=1) + "\n"


def read_host_profile(path: str | Path) -> HostProfile:
    """Read a hardware profile strictly.

    Raises
    ------
    InvalidInputError
        If the file cannot be read or is no hardware profile of this version; every problem names its field.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_SIZE_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(
            "cannot read the hardware profile",
            where=Place(path),
            got=error.strerror,
            hint="exactmap calibrate writes one",
        ) from None
    if len(data) > _MAX_SIZE_BYTES:
        raise InvalidInputError("the file is too large", where=Place(path), expected="at most 16 MiB")
    try:
        return HostProfile.model_validate_json(data)
    except ValidationError as error:
        problems = [
            InvalidInputError(
                entry["msg"],
                where=Place(path, field=".".join(map(str, entry["loc"])) or None),
                got=repr(entry["input"])[:60],
            )
            for entry in error.errors()
        ]
        if len(problems) == 1:
            raise problems[0] from None
        raise InvalidInputError(f"{path}: not a hardware profile", problems=problems[:20]) from None
