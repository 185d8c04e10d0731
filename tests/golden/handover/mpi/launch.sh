#!/bin/bash
# The ranks of an exactmap plan on their GPUs.
# plan: small.plan, sha256 0000000000000000000000000000000000000000000000000000000000000000
# names as in Open MPI and MPICH 04202f8f and 10d8a40a (looked at 2026-11-26); what they cannot say: cannot.md
set -euo pipefail
# ./launch.sh COMMAND.., such as ../megatron/launch.sh --mock-data; with MPI=mpich by its mpiexec
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export MASTER_ADDR="${MASTER_ADDR:-$(head -n 1 "$here/hosts.txt")}"
export MASTER_PORT="${MASTER_PORT:-29500}"
if [ "${MPI:-openmpi}" = mpich ]; then
  exec mpiexec -f "$here/machinefile.txt" -n 8 -genv MASTER_ADDR "$MASTER_ADDR" \
    -genv MASTER_PORT "$MASTER_PORT" "$here/bind.sh" "$@"
fi
exec mpirun --hostfile "$here/hosts.txt" --map-by seq --bind-to none -n 8 \
  -x MASTER_ADDR -x MASTER_PORT "$here/bind.sh" "$@"
