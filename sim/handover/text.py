"""Text of scripts and settings: quoting, headers, numbers."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from exactmap.sim.handover.handover import Job

__all__ = ["Value", "argument_lines", "script_head", "toml_text", "torchrun_line"]

Value = bool | int | float | str | list[list[str]] | list[str] | None
"""A setting; None stands for a flag without a value."""


def script_head(job: Job, what: str, source: str) -> str:
    """First lines of a shell script: what it is, of which plan, with whose names."""
    return (
        "#!/bin/bash\n"
        f"# {what}\n"
        f"# plan: {job.name}, sha256 {job.sha256}\n"
        f"# names as in {source}; what they cannot say: cannot.md\n"
        "set -euo pipefail\n"
    )


def argument_lines(arguments: Mapping[str, Value]) -> str:
    """A bash array's inside: an argument and its value a line.

    Examples
    --------
    >>> print(argument_lines({"--lr": 3e-4, "--swiglu": None, "--layout": "Et*2|tL"}), end="")
      --lr 0.0003
      --swiglu
      --layout 'Et*2|tL'
    """
    return "".join(
        f"  {name}\n" if value is None else f"  {name} {shlex.quote(str(value))}\n"
        for name, value in arguments.items()
    )


def torchrun_line(job: Job, program: str) -> str:
    """The last lines of a script: torchrun, as its variables say or on the hosts that the ranks fill."""
    per_host = min(job.gpus_per_host, job.num_ranks)
    return (
        "# NNODES, NODE_RANK, GPUS_PER_NODE, MASTER_ADDR, MASTER_PORT: of this host, for torchrun\n"
        f'exec torchrun --nnodes "${{NNODES:-{-(-job.num_ranks // per_host)}}}" \\\n'
        f'  --node-rank "${{NODE_RANK:-0}}" --nproc-per-node "${{GPUS_PER_NODE:-{per_host}}}" \\\n'
        '  --master-addr "${MASTER_ADDR:-localhost}" --master-port "${MASTER_PORT:-29500}" \\\n'
        f"  {program}\n"
    )


def toml_text(sections: Mapping[str, Mapping[str, Value]]) -> str:
    """Tables of settings as TOML.

    Examples
    --------
    >>> print(toml_text({"training": {"seq_len": 64, "max_norm": 1.0, "parts": [["a"], ["b", "c"]]}}), end="")
    [training]
    seq_len = 64
    max_norm = 1.0
    parts = [["a"], ["b", "c"]]
    """
    tables = (
        f"[{section}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in settings.items())
        for section, settings in sections.items()
        if settings
    )
    return "\n".join(tables)


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, _members(value)))}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    assert value is not None
    return repr(value)


def _members(value: list[list[str]] | list[str]) -> Iterable[list[str] | str]:
    yield from value
