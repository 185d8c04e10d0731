#!/bin/bash
# torchtitan on the layout of an exactmap plan.
# plan: small.plan, sha256 0000000000000000000000000000000000000000000000000000000000000000
# names as in pytorch/torchtitan v0.2.2 (2026-02-20); what they cannot say: cannot.md
set -euo pipefail
# Run with torchtitan installed.
# Arguments are passed on: --model.hf_assets_path .. --training.dataset ..
cd "$(dirname "${BASH_SOURCE[0]}")"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -n "${RANK:-}" ]; then
  exec python -m torchtitan.train --job.config_file job.toml "$@"
fi
# NNODES, NODE_RANK, GPUS_PER_NODE, MASTER_ADDR, MASTER_PORT: of this host, for torchrun
exec torchrun --nnodes "${NNODES:-1}" \
  --node-rank "${NODE_RANK:-0}" --nproc-per-node "${GPUS_PER_NODE:-8}" \
  --master-addr "${MASTER_ADDR:-localhost}" --master-port "${MASTER_PORT:-29500}" \
  -m torchtitan.train --job.config_file job.toml "$@"
