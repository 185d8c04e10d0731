#!/bin/bash
# In one rank: rank and GPU as torch wants them, then the command.
# plan: small.plan, sha256 0000000000000000000000000000000000000000000000000000000000000000
# names as in Open MPI and MPICH 04202f8f and 10d8a40a (looked at 2026-11-26); what they cannot say: cannot.md
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
export RANK="${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-}}"
export WORLD_SIZE="${OMPI_COMM_WORLD_SIZE:-${PMI_SIZE:-}}"
export LOCAL_RANK="$(sed -n "$((RANK + 1))p" "$here/places.txt")"
exec "$@"
