"""`exactmap sample`: let a checkpoint continue a prompt."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from exactmap.sim.cli.console import verb

__all__ = ["sample"]


@verb
def sample(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint folder that `exactmap run` wrote.")],
    *,
    prompt: Annotated[str, typer.Option(help="Text to continue; none: the beginning of a document.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="Length of the continuation.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: always the most likely token.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Choose among so many; 0: among all.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal texts.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Continue a prompt with a trained checkpoint."""
    from exactmap.sim.verbs.sample import sample as draw

    drawn = draw(
        checkpoint, prompt=prompt, num_tokens=tokens, temperature=temperature, top_k=top_k, seed=seed
    )
    if as_json:
        print(json.dumps(drawn.to_dict(), indent=2))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(prompt.encode() + drawn.continuation + b"\n")
    sys.stdout.buffer.flush()
