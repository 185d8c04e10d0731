"""Hand a plan over to torchtitan: its TOML, the schedule as PyTorch's CSV, a flavor of the model.

PyTorch's pipeline runtime takes any order of passes from a file, so most schedules go over pass for pass.
What it has no word for is taken out first: recomputation becomes a setting, copies to the host are dropped.
"""

from __future__ import annotations

from exactmap.sim.handover.handover import Handover, Job
from exactmap.sim.handover.shared import leave_to_framework
from exactmap.sim.handover.sources import source_of
from exactmap.sim.handover.text import Value, script_head, toml_text, torchrun_line
from exactmap.sim.handover.torchtitan_model import hand_over_model
from exactmap.sim.handover.torchtitan_training import parallel_numbers, training_numbers
from exactmap.sim.handover.verdict import Grade, Ledger
from exactmap.sim.schedules.torch_csv.lower import passes_of

__all__ = ["to_torchtitan"]

_CSV = "schedule.csv"


def to_torchtitan(job: Job) -> Handover:
    """Settings of a torchtitan run.

    Examples
    --------
    >>> from exactmap.sim.schedules.build import build_plan
    >>> from exactmap.sim.workload.presets import find_preset
    >>> plan = build_plan(find_preset("byte-tiny"), schedule="zb-h1", pp=2, num_microbatches=4, seq=64)
    >>> found = to_torchtitan(Job(plan, "q.plan", "0" * 64))
    >>> sorted(found.files)
    ['exactmap_flavor.py', 'job.toml', 'launch.sh', 'schedule.csv']
    >>> next(line.how for line in found.verdict.lines if line.fact == "passes.order")
    'schedule.csv, pass for pass'
    """
    ledger = job.ledger()
    leave_to_framework(ledger)
    sections: dict[str, dict[str, Value]] = {"job": {"description": f"{job.name} {job.sha256[:12]}"}}
    model, files = hand_over_model(job, ledger)
    sections |= model
    sections |= training_numbers(job, ledger)
    sections["parallelism"] = parallel_numbers(job, ledger) | _pipeline(job, ledger, files)
    sections["activation_checkpoint"] = _recomputation(job, ledger)
    verdict = ledger.verdict("torchtitan")
    if verdict.grade is Grade.REFUSED:
        return Handover(verdict, {})
    source = str(source_of("torchtitan"))
    head = f"# {job.name}, sha256 {job.sha256}\n# names as in {source}; what they cannot say: cannot.md\n\n"
    files |= {"job.toml": head + toml_text(sections), "launch.sh": _script(job, source)}
    emitted = [f"{section}.{key}" for section, settings in sections.items() for key in settings]
    return Handover(verdict, files, emitted)


def _pipeline(job: Job, ledger: Ledger, files: dict[str, str]) -> dict[str, Value]:
    """Layers of the stages and the order of passes."""
    plan, order = job.plan, job.order
    ledger.own("it places traffic inside passes itself", "stages.parts")
    if plan.mesh.pp == 1:
        return _unpiped(job, ledger)
    out: dict[str, Value] = {
        "module_fqns_per_model_part": [
            [
                *(["tok_embeddings"] if stage.embedding else []),
                *(f"layers.{layer}" for layer in range(stage.first, stage.last + 1) if stage.first >= 0),
                *(["norm", "output"] if stage.head else []),
            ]
            for stage in plan.stages
        ]
    }
    if any(not stage.num_layers and not stage.embedding and not stage.head for stage in plan.stages):
        ledger.refuse("a stage holds a module at least", "stages.layers")
    else:
        ledger.exact("module_fqns_per_model_part", "stages.layers")
    named = "1F1B" if order.num_chunks == 1 else "Interleaved1F1B"
    if order.placement == "two":
        ledger.refuse("a stage has one rank", "place")
    elif order.placement == "other" or not order.num_chunks:
        ledger.refuse("stages go round the ranks, or down and up once", "place")
    elif order.placement == "vee":
        named = "ZBVZeroBubble"
        ledger.exact("placement of ZBVZeroBubble", "place")
    else:
        ledger.exact(f"placement of {named}", "place")
    out["pipeline_parallel_schedule"] = named
    out["pipeline_parallel_microbatch_size"] = plan.train.microbatch
    passes = order.passes_alone()
    if order.placement == "two":
        ledger.refuse(
            "a file of torch has a stage on one rank", "passes.order", "passes.split", "passes.braids"
        )
    elif passes is None:
        ledger.instead(f"{named}: a file of torch has neither slices nor parts", "passes.order")
        ledger.instead("both gradients at once (B)", "passes.split")
        ledger.instead("passes one after the other", "passes.braids")
    else:
        files[_CSV] = "".join(",".join(actions.cells()) + "\r\n" for actions in passes_of(passes))
        out["pipeline_parallel_schedule_csv"] = _CSV
        ledger.exact(f"{_CSV}, pass for pass", "passes.order")
        ledger.exact("I and W in the schedule", "passes.split")
        ledger.instead(
            "OVERLAP_F_B in the schedule, one pass after the other but for DualPipeV", "passes.braids"
        )
    return out


def _unpiped(job: Job, ledger: Ledger) -> dict[str, Value]:
    """One pipeline rank: the whole model, gradients accumulated over microbatches."""
    ledger.exact("one rank holds all layers", "stages.layers")
    ledger.exact("one rank", "place")
    order = job.order.order
    works = order.works(0) if order is not None else None
    in_turn = works is not None and len(job.plan.stages) == 1 and job.order.leading_microbatches() >= 1
    turns = [str(work.op) for work in works] if works is not None else []
    if in_turn and turns == ["F", "B"] * job.plan.train.m:
        ledger.exact("gradient accumulation: F and B in turn", "passes.order")
    else:
        ledger.instead("gradient accumulation: F and B in turn", "passes.order")
    ledger.instead("both gradients at once (B)", "passes.split")
    ledger.instead("passes one after the other", "passes.braids")
    return {}


def _recomputation(job: Job, ledger: Ledger) -> dict[str, Value]:
    order = job.order
    ledger.instead("stashes stay on the GPU: the memory that this takes must be there", "passes.offloaded")
    if not order.recomputed:
        return {"mode": "none"}
    if order.recomputed == order.num_items:
        ledger.exact('activation_checkpoint.mode = "full", layer by layer', "passes.recomputed")
    else:
        ledger.instead(
            'activation_checkpoint.mode = "full": every microbatch, F more for each', "passes.recomputed"
        )
    return {"mode": "full"}


def _script(job: Job, source: str) -> str:
    return (
        script_head(job, "torchtitan on the layout of an exactmap plan.", source)
        + "# Run with torchtitan installed.\n"
        "# Arguments are passed on: --model.hf_assets_path .. --training.dataset ..\n"
        'cd "$(dirname "${BASH_SOURCE[0]}")"\n'
        'export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"\n'
        'if [ -n "${RANK:-}" ]; then\n'
        '  exec python -m torchtitan.train --job.config_file job.toml "$@"\n'
        "fi\n" + torchrun_line(job, '-m torchtitan.train --job.config_file job.toml "$@"')
    )
