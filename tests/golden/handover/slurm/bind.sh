#!/bin/bash
# In one task: rank and GPU as torch wants them, then the command.
# plan: small.plan, sha256 0000000000000000000000000000000000000000000000000000000000000000
# names as in SchedMD/slurm 284c3b95 (2026-08-20); what they cannot say: cannot.md
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
export RANK="$SLURM_PROCID" WORLD_SIZE="$SLURM_NTASKS" LOCAL_RANK="$(sed -n "$((SLURM_PROCID + 1))p" "$here/places.txt")"
exec "$@"
