"""Let a checkpoint continue a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exactmap.errors import InvalidInputError

__all__ = ["Sample", "sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt and what a checkpoint made of it."""

    checkpoint: Path
    prompt: str
    continuation: bytes

    @property
    def text(self) -> str:
        """The continuation as text; bytes that are no UTF-8 are shown as replacement characters."""
        return self.continuation.decode("utf-8", errors="replace")

    def to_dict(self) -> dict[str, object]:
        """The sample as a JSON-ready document."""
        return {
            "schema_version": 1,
            "kind": "sample",
            "checkpoint": str(self.checkpoint),
            "prompt": self.prompt,
            "continuation": self.text,
            "num_bytes": len(self.continuation),
        }


def sample(
    checkpoint: str | Path,
    *,
    prompt: str = "",
    num_tokens: int = 256,
    temperature: float = 0.8,
    top_k: int = 0,
    seed: int = 0,
) -> Sample:
    """Continue a prompt with a checkpoint of a model over bytes.

    Parameters
    ----------
    checkpoint
        The folder that `run` wrote.
    prompt
        Text to continue; empty: the beginning of a document.
    num_tokens
        Length of the continuation.
    temperature
        0: always the most likely token.
    top_k
        Choose among so many; 0: among all.
    seed
        Equal seeds give equal texts.

    Raises
    ------
    InvalidInputError
        If an argument is out of range, or the checkpoint is not valid.
    """
    from exactmap.backend_c.run import sample as draw

    for name, value in (
        ("num_tokens", num_tokens),
        ("top_k", top_k),
        ("seed", seed),
        ("temperature", temperature),
    ):
        if not 0 <= value < 2**31:
            raise InvalidInputError("out of range", where=name, got=str(value), expected="0 to 2147483647")
    drawn = draw(
        checkpoint, prompt=prompt, num_tokens=num_tokens, temperature=temperature, top_k=top_k, seed=seed
    )
    return Sample(Path(checkpoint), prompt, drawn)
