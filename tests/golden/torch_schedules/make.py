r"""Write the schedules of PyTorch 2.13.0 as its own CSV files, here.

    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch==2.13.0 numpy
    /tmp/torch/bin/python tests/golden/torch_schedules/make.py

``NAME.compute_only.csv`` and ``NAME.compute_comms.csv`` are what ``_PipelineScheduleRuntime._dump_csv``
writes (lines end in ``\r\n``); ``NAME.deferred.csv`` is the second with ``defer_pp_recv=True``. The
single-stage schedules have no dump of their own: ``NAME.ir.csv`` is what their ``_get_pipeline_order``
returns, and GPipe's passes then go through the runtime like the others, as does a list made by hand.
NAME says schedule, ranks, microbatches and stages a rank.
"""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import torch
from torch.distributed.pipelining import schedules as pipelining

HERE = Path(__file__).parent

#: (schedule class, ranks, microbatches, stages per rank): all of torch's at two sizes, odd sizes of some.
CASES = [
    ("Interleaved1F1B", 4, 8, 2),
    ("Interleaved1F1B", 2, 4, 2),
    ("Interleaved1F1B", 4, 10, 3),
    ("LoopedBFS", 4, 8, 2),
    ("InterleavedZeroBubble", 4, 8, 2),
    ("ZBVZeroBubble", 4, 8, 2),
    ("DualPipeV", 4, 8, 2),
]
LARGE = [
    ("Interleaved1F1B", 8, 24, 2),
    ("Interleaved1F1B", 8, 24, 4),
    ("InterleavedZeroBubble", 8, 24, 2),
    ("ZBVZeroBubble", 8, 24, 2),
    ("DualPipeV", 8, 24, 2),
]
SINGLE = [("GPipe", 4, 8), ("1F1B", 4, 8)]
#: More stages on a rank than torch keeps unsharded, and overlaps among them: no schedule of torch has both.
BY_HAND = (
    "0F0,1F0,2F0,3F0,4F0,0F1,1F1,2F1,(3F1;4B0)OVERLAP_F_B,(4F1;3B0)OVERLAP_F_B,"
    "2B0,1B0,0B0,4B1,3B1,2B1,1B1,0B1\r\n"
)


class Stage:
    """What a schedule asks of a stage when it is made."""

    def __init__(self, rank: int, index: int, num_ranks: int, num_stages: int) -> None:
        self.group_rank, self.group_size = rank, num_ranks
        self.stage_index, self.num_stages = index, num_stages
        self.is_first, self.is_last = index == 0, index == num_stages - 1
        self.has_backward = True
        self.submod = torch.nn.Identity()
        self.stage_index_to_group_rank: dict[int, int] = {}


def make_schedule(name: str, p: int, m: int, v: int, **options: Any) -> Any:
    """One of torch's multi-stage schedules, as the first rank makes it: it holds the actions of all ranks."""
    kind = pipelining.get_schedule_class(name)
    stages = [Stage(0, p * chunk, p, p * v) for chunk in range(v)]
    return kind(stages, m, loss_fn=lambda *_: None, **options)


def make_single(name: str, p: int, m: int) -> dict[int, list[Any]]:
    """What a single-stage schedule of torch gives as its actions."""
    kind = pipelining.get_schedule_class(name)
    return kind(Stage(0, 0, p, p), m, loss_fn=lambda *_: None)._get_pipeline_order()


def make_runtime(p: int, m: int, num_stages: int) -> Any:
    """The runtime of torch without any actions, to load or lower some."""
    stages = [Stage(0, 0, p, num_stages)]
    return pipelining._PipelineScheduleRuntime(stages, m, loss_fn=lambda *_: None)


def main(folder: Path = HERE) -> None:
    """Write all files into a folder."""
    for name, p, m, v in [*CASES, *LARGE]:
        stem = f"{name}-p{p}-m{m}-v{v}"
        schedule = make_schedule(name, p, m, v)
        schedule._dump_csv(folder / f"{stem}.compute_only.csv", format="compute_only")
        if (name, p, m, v) in CASES:
            schedule._dump_csv(folder / f"{stem}.compute_comms.csv", format="compute_comms")
            deferred = make_schedule(name, p, m, v, defer_pp_recv=True)
            deferred._dump_csv(folder / f"{stem}.deferred.csv", format="compute_comms")
    for name, p, m in SINGLE:
        stem = f"{name}-p{p}-m{m}-v1"
        actions = make_single(name, p, m)
        with (folder / f"{stem}.ir.csv").open("w", newline="") as file:
            csv.writer(file).writerows(actions[rank] for rank in range(p))
        if name == "GPipe":
            runtime = make_runtime(p, m, p)
            runtime.pipeline_order = {
                rank: [action for action in row if action.is_compute_op] for rank, row in actions.items()
            }
            runtime._prepare_schedule_with_comms(runtime.pipeline_order)
            for form in ("compute_only", "compute_comms"):
                runtime._dump_csv(folder / f"{stem}.{form}.csv", format=form)
    plain = folder / "ByHand-p1-m2-v5.compute_only.csv"
    plain.write_bytes(BY_HAND.encode())
    runtime = make_runtime(1, 2, 5)
    runtime._load_csv(plain)
    runtime._dump_csv(folder / "ByHand-p1-m2-v5.compute_comms.csv", format="compute_comms")


if __name__ == "__main__":
    logging.disable()
    main()
