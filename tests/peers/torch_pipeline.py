"""One rank of a training step in torch's pipeline runtime, from a schedule file; started by a test.

    python torch_pipeline.py RANK RANKS MICROBATCHES STAGES FORM SCHEDULE.csv FOLDER

The ranks talk through gloo and meet at a file in FOLDER. Each leaves the gradients of its stages there.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

from exactmap.sim.schedules.torch_csv.file import read_torch_csv

WIDTH = 6
BATCH_PER_MICROBATCH = 2


def make_layers(num_stages: int) -> list[torch.nn.Module]:
    """A layer per stage, the same wherever it is made."""
    torch.manual_seed(7)
    return [
        torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh()).double()
        for _ in range(num_stages)
    ]


def make_batch(num_microbatches: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of one step."""
    generator = torch.Generator().manual_seed(11)
    shape = (2, BATCH_PER_MICROBATCH * num_microbatches, WIDTH)
    inputs, targets = torch.randn(shape, generator=generator, dtype=torch.float64)
    return inputs, targets


def main() -> None:
    """Run one step and store the gradients."""
    rank, num_ranks, num_microbatches, num_stages = map(int, sys.argv[1:5])
    form, path, folder = sys.argv[5], sys.argv[6], Path(sys.argv[7])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meet'}",
        rank=rank,
        world_size=num_ranks,
        timeout=timedelta(seconds=200),
    )
    placement = read_torch_csv(path).placement
    layers = make_layers(num_stages)
    stages = [
        PipelineStage(layers[stage], stage, num_stages, torch.device("cpu"))
        for stage in range(num_stages)
        if placement[stage] == (rank,)
    ]
    for stage in stages:
        stage.stage_index_to_group_rank = {number: held[0] for number, held in enumerate(placement)}
    schedule = _PipelineScheduleRuntime(stages, num_microbatches, loss_fn=torch.nn.functional.mse_loss)
    schedule._load_csv(path, format=form)
    inputs, targets = make_batch(num_microbatches)
    first = any(stage.is_first for stage in stages)
    last = any(stage.is_last for stage in stages)
    schedule.step(*((inputs,) if first else ()), **({"target": targets} if last else {}))
    for stage in stages:
        gradients = [parameter.grad for parameter in stage.submod.parameters()]
        torch.save(gradients, folder / f"stage{stage.stage_index}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
