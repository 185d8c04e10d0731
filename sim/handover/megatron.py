"""Hand a plan over to Megatron-LM: launch arguments, as a script and as JSON.

The script starts ``pretrain_gpt.py`` under torchrun, or, where a launcher has set RANK already, in that rank.
Data and checkpoints are the user's: arguments after the script's own are passed on.
"""

from __future__ import annotations

import json

from exactmap.sim.handover.handover import Handover, Job
from exactmap.sim.handover.megatron_pipeline import gradient_arguments, mesh_arguments, pipeline_arguments
from exactmap.sim.handover.megatron_settings import model_arguments, number_arguments, training_arguments
from exactmap.sim.handover.shared import leave_to_framework
from exactmap.sim.handover.sources import source_of
from exactmap.sim.handover.text import Value, argument_lines, script_head, torchrun_line
from exactmap.sim.handover.verdict import Grade

__all__ = ["to_megatron"]


def to_megatron(job: Job) -> Handover:
    """Arguments of a Megatron-LM run.

    Examples
    --------
    >>> from exactmap.sim.schedules.build import build_plan
    >>> from exactmap.sim.workload.presets import find_preset
    >>> plan = build_plan(find_preset("byte-tiny"), schedule="zb-h1", pp=2, num_microbatches=4, seq=64)
    >>> found = to_megatron(Job(plan, "q.plan", "0" * 64))
    >>> found.verdict.grade.value, sorted(found.files)
    ('approximate', ['arguments.json', 'launch.sh'])
    """
    ledger = job.ledger()
    leave_to_framework(ledger)
    arguments: dict[str, Value] = {}
    for part in (
        model_arguments,
        mesh_arguments,
        pipeline_arguments,
        training_arguments,
        number_arguments,
        gradient_arguments,
    ):
        arguments |= part(job, ledger)
    verdict = ledger.verdict("megatron")
    if verdict.grade is Grade.REFUSED:
        return Handover(verdict, {})
    return Handover(
        verdict,
        {"launch.sh": _script(job, arguments), "arguments.json": _document(job, arguments)},
        tuple(arguments),
    )


def _script(job: Job, arguments: dict[str, Value]) -> str:
    return (
        script_head(job, "Megatron-LM on the layout of an exactmap plan.", str(source_of("megatron")))
        + "# MEGATRON: its folder.\n"
        "# Arguments are passed on: --data-path .., --mock-data, --save ..\n"
        "export CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-1}\n"
        f"ARGUMENTS=(\n{argument_lines(arguments)})\n"
        'PROGRAM="${MEGATRON:-.}/pretrain_gpt.py"\n'
        'if [ -n "${RANK:-}" ]; then\n'
        '  exec python "$PROGRAM" "${ARGUMENTS[@]}" "$@"\n'
        "fi\n" + torchrun_line(job, '"$PROGRAM" "${ARGUMENTS[@]}" "$@"')
    )


def _document(job: Job, arguments: dict[str, Value]) -> str:
    """The arguments by name; a flag is true."""
    document = {
        "plan_sha256": job.sha256,
        "source": str(source_of("megatron")),
        "world_size": job.num_ranks,
        "arguments": {name: True if value is None else value for name, value in arguments.items()},
    }
    return json.dumps(document, indent=2) + "\n"
