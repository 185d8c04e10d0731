"""Hand a plan over to MaxText: settings of a run on GPUs, as ``key=value`` arguments and as JSON.

MaxText's pipeline goes round the stages with all forward passes first; the backward pass is what
differentiation makes of that, microbatches last to first. Embedding and head lie outside of it.
"""

from __future__ import annotations

import json

from exactmap.sim.handover.handover import Handover, Job
from exactmap.sim.handover.maxtext_settings import (
    mesh_settings,
    model_settings,
    pipeline_settings,
    training_settings,
)
from exactmap.sim.handover.shared import leave_to_framework
from exactmap.sim.handover.sources import source_of
from exactmap.sim.handover.text import Value, script_head
from exactmap.sim.handover.verdict import Grade

__all__ = ["to_maxtext"]


def to_maxtext(job: Job) -> Handover:
    """Settings of a MaxText run.

    Examples
    --------
    >>> from exactmap.sim.schedules.build import build_plan
    >>> from exactmap.sim.workload.presets import find_preset
    >>> plan = build_plan(find_preset("byte-tiny"), schedule="gpipe", pp=2, num_microbatches=4, seq=64)
    >>> found = to_maxtext(Job(plan, "q.plan", "0" * 64))
    >>> [line.fact for line in found.verdict.lines if line.grade == "approximate"]
    ['train.warmup', 'train.decay', 'stages.layers', 'passes.order']
    """
    ledger = job.ledger()
    leave_to_framework(ledger)
    settings: dict[str, Value] = {}
    for part in (model_settings, mesh_settings, pipeline_settings, training_settings):
        settings |= part(job, ledger)
    verdict = ledger.verdict("maxtext")
    if verdict.grade is Grade.REFUSED:
        return Handover(verdict, {})
    source = str(source_of("maxtext"))
    lines = "".join(f"  {name}={_word(value)}\n" for name, value in settings.items())
    script = (
        script_head(job, "MaxText on the layout of an exactmap plan.", source)
        + "# Run in MaxText's folder, or set MAXTEXT_CONFIG; a process per host or GPU.\n"
        "# Arguments are passed on: run_name=.. base_output_directory=.. dataset_type=..\n"
        f"SETTINGS=(\n{lines})\n"
        '[ -z "${RANK:-}" ] || SETTINGS+=(hardware=gpu_multiprocess)  # a process per GPU\n'
        'CONFIG="${MAXTEXT_CONFIG:-src/maxtext/configs/base.yml}"\n'
        'exec python3 -m maxtext.trainers.pre_train.train "$CONFIG" \\\n'
        '  "${SETTINGS[@]}" "$@"\n'
    )
    document = {
        "plan_sha256": job.sha256,
        "source": source,
        "world_size": job.num_ranks,
        "settings": settings,
    }
    files = {"launch.sh": script, "settings.json": json.dumps(document, indent=2) + "\n"}
    return Handover(verdict, files, tuple(settings))


def _word(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "'" + json.dumps(value, separators=(",", ":")) + "'"
    return str(value)
