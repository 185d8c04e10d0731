"""Hand a map over to MPI: Open MPI's rank file and list of a host per rank, MPICH's machine file.

Open MPI's rank file names a slot, which it takes for a core and binds to; the list of a host per rank with
``--map-by seq`` binds to none and leaves the GPU to ``bind.sh``. MPICH fills the hosts of its machine file
in order, so ranks of one host must follow each other.
"""

from __future__ import annotations

from exactmap.sim.handover.handover import Handover, Job
from exactmap.sim.handover.seats import Seats, seat_ranks
from exactmap.sim.handover.shared import leave_to_program, say_seats
from exactmap.sim.handover.sources import source_of
from exactmap.sim.handover.text import script_head
from exactmap.topology.exact_map.launch_files import write_rank_file

__all__ = ["to_mpi"]


def to_mpi(job: Job) -> Handover:
    """Files of an MPI job; `job` must have been laid onto a cluster."""
    assert job.laid is not None
    ledger = job.ledger()
    leave_to_program(ledger)
    say_seats(ledger, "rankfile.txt and hosts.txt", "rankfile.txt, places.txt and bind.sh")
    seats = seat_ranks(job.laid)
    source = str(source_of("mpi"))
    files = {
        "rankfile.txt": write_rank_file(job.laid.exact_map, seats.names),
        "hosts.txt": seats.lines(),
        "launch.sh": _launch(job, source, seats),
        "bind.sh": _bind(job, source, in_order=seats.in_order),
    }
    if seats.is_grouped:
        files["machinefile.txt"] = "".join(f"{name}:{count}\n" for name, count in seats.counts())
    else:
        ledger.instead("no machine file for MPICH: ranks of a host do not follow each other", "map.gpus")
    if not seats.in_order:
        files["places.txt"] = seats.places()
    emitted = ["--hostfile", "--map-by", "--bind-to", "-n", "-x", *_VARIABLES]
    if seats.is_grouped:
        emitted += ["-f", "-genv"]
    return Handover(ledger.verdict("mpi"), files, emitted)


_VARIABLES = (
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_RANK",
    "PMI_SIZE",
    "MPI_LOCALRANKID",
)


def _launch(job: Job, source: str, seats: Seats) -> str:
    mpich = (
        'if [ "${MPI:-openmpi}" = mpich ]; then\n'
        f'  exec mpiexec -f "$here/machinefile.txt" -n {job.num_ranks} -genv MASTER_ADDR "$MASTER_ADDR" \\\n'
        '    -genv MASTER_PORT "$MASTER_PORT" "$here/bind.sh" "$@"\n'
        "fi\n"
    )
    return (
        script_head(job, "The ranks of an exactmap plan on their GPUs.", source)
        + "# ./launch.sh COMMAND.., such as ../megatron/launch.sh --mock-data"
        + ("; with MPI=mpich by its mpiexec\n" if seats.is_grouped else "\n")
        + 'here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"\n'
        'export MASTER_ADDR="${MASTER_ADDR:-$(head -n 1 "$here/hosts.txt")}"\n'
        'export MASTER_PORT="${MASTER_PORT:-29500}"\n'
        + (mpich if seats.is_grouped else "")
        + f'exec mpirun --hostfile "$here/hosts.txt" --map-by seq --bind-to none -n {job.num_ranks} \\\n'
        '  -x MASTER_ADDR -x MASTER_PORT "$here/bind.sh" "$@"\n'
    )


def _bind(job: Job, source: str, *, in_order: bool) -> str:
    local = '"${OMPI_COMM_WORLD_LOCAL_RANK:-${MPI_LOCALRANKID:-}}"'
    place = local if in_order else '"$(sed -n "$((RANK + 1))p" "$here/places.txt")"'
    return (
        script_head(job, "In one rank: rank and GPU as torch wants them, then the command.", source)
        + 'here="$(dirname "${BASH_SOURCE[0]}")"\n'
        'export RANK="${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-}}"\n'
        'export WORLD_SIZE="${OMPI_COMM_WORLD_SIZE:-${PMI_SIZE:-}}"\n'
        f"export LOCAL_RANK={place}\n"
        'exec "$@"\n'
    )
