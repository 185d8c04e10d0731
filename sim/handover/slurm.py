"""Hand a map over to Slurm: a batch script, a host per task, and the GPU of each task.

``SLURM_HOSTFILE`` with ``--distribution=arbitrary`` puts task r where line r says; the GPU in that host is
the task's number there, or what ``places.txt`` says where the map leaves GPUs out.
"""

from __future__ import annotations

from exactmap.sim.handover.handover import Handover, Job
from exactmap.sim.handover.seats import seat_ranks
from exactmap.sim.handover.shared import leave_to_program, say_seats
from exactmap.sim.handover.sources import source_of
from exactmap.sim.handover.text import script_head
from exactmap.topology.exact_map.host_list import compress_hosts

__all__ = ["to_slurm"]


def to_slurm(job: Job) -> Handover:
    """Batch script and files of a Slurm job; `job` must have been laid onto a cluster."""
    assert job.laid is not None
    ledger = job.ledger()
    leave_to_program(ledger)
    say_seats(ledger, "hosts.txt", "places.txt and bind.sh")
    seats = seat_ranks(job.laid)
    numbers = seats.host_numbers
    source = str(source_of("slurm"))
    per_host = job.gpus_per_host
    options = {
        "--nodes": str(len(numbers)),
        "--ntasks": str(job.num_ranks),
        "--nodefile": "nodes.txt",
        "--gres": f"gpu:{per_host}",
        "--exclusive": "",
    }
    srun = {
        "--distribution": "arbitrary",
        "--ntasks": str(job.num_ranks),
        "--gpu-bind": "none",
        "--kill-on-bad-exit": "1",
    }
    named = job.name.removesuffix(".plan")
    batch = (
        "#!/bin/bash\n"
        + "".join(f"#SBATCH {name}{'=' * bool(value)}{value}\n" for name, value in options.items())
        + f"#SBATCH --job-name={named}\n"
        + script_head(job, "The ranks of an exactmap plan on their GPUs.", source).partition("\n")[2]
        + "# Submit here: sbatch job.sbatch COMMAND.., such as ../megatron/launch.sh --mock-data\n"
        'here="${SLURM_SUBMIT_DIR:-.}"\n'
        'export SLURM_HOSTFILE="$here/hosts.txt"\n'
        'export MASTER_ADDR="${MASTER_ADDR:-$(head -n 1 "$SLURM_HOSTFILE")}"\n'
        'export MASTER_PORT="${MASTER_PORT:-29500}"\n'
        f'exec srun {" ".join(f"{name}={value}" for name, value in srun.items())} "$here/bind.sh" "$@"\n'
    )
    files = {
        "job.sbatch": batch,
        "bind.sh": _bind(job, source, in_order=seats.in_order),
        "hosts.txt": seats.lines(),
        "nodes.txt": compress_hosts([seats.names[number] for number in numbers]) + "\n",
    }
    if not seats.in_order:
        files["places.txt"] = seats.places()
    emitted = (*options, *srun, "--job-name", "SLURM_HOSTFILE", "SLURM_SUBMIT_DIR", *_VARIABLES)
    return Handover(ledger.verdict("slurm"), files, emitted)


_VARIABLES = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")


def _bind(job: Job, source: str, *, in_order: bool) -> str:
    place = '"$SLURM_LOCALID"' if in_order else '"$(sed -n "$((SLURM_PROCID + 1))p" "$here/places.txt")"'
    return (
        script_head(job, "In one task: rank and GPU as torch wants them, then the command.", source)
        + 'here="$(dirname "${BASH_SOURCE[0]}")"\n'
        f'export RANK="$SLURM_PROCID" WORLD_SIZE="$SLURM_NTASKS" LOCAL_RANK={place}\n'
        'exec "$@"\n'
    )
