#!/bin/bash
# Megatron-LM on the layout of an exactmap plan.
# plan: small.plan, sha256 0000000000000000000000000000000000000000000000000000000000000000
# names as in NVIDIA/Megatron-LM d98e8a64 (2026-08-22); what they cannot say: cannot.md
set -euo pipefail
# MEGATRON: its folder.
# Arguments are passed on: --data-path .., --mock-data, --save ..
export CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-1}
ARGUMENTS=(
  --num-layers 4
  --hidden-size 64
  --ffn-hidden-size 192
  --num-attention-heads 4
  --kv-channels 16
  --max-position-embeddings 128
  --norm-epsilon 1e-05
  --vocab-size 259
  --make-vocab-size-divisible-by 1
  --tokenizer-type NullTokenizer
  --attention-dropout 0.0
  --hidden-dropout 0.0
  --group-query-attention
  --num-query-groups 2
  --untie-embeddings-and-output-weights
  --position-embedding-type rope
  --rotary-base 10000
  --normalization RMSNorm
  --swiglu
  --disable-bias-linear
  --tensor-model-parallel-size 2
  --pipeline-model-parallel-size 2
  --context-parallel-size 1
  --sequence-parallel
  --pipeline-model-parallel-layout 'Et*3|tL'
  --micro-batch-size 1
  --global-batch-size 16
  --seq-length 64
  --train-iters 1000
  --optimizer adam
  --lr 0.0003
  --min-lr 3e-05
  --lr-decay-style cosine
  --lr-decay-iters 1000
  --lr-warmup-iters 100
  --adam-beta1 0.9
  --adam-beta2 0.95
  --adam-eps 1e-08
  --weight-decay 0.1
  --clip-grad 1.0
  --seed 1
  --overlap-grad-reduce
  --use-distributed-optimizer
  --overlap-param-gather
)
PROGRAM="${MEGATRON:-.}/pretrain_gpt.py"
if [ -n "${RANK:-}" ]; then
  exec python "$PROGRAM" "${ARGUMENTS[@]}" "$@"
fi
# NNODES, NODE_RANK, GPUS_PER_NODE, MASTER_ADDR, MASTER_PORT: of this host, for torchrun
exec torchrun --nnodes "${NNODES:-1}" \
  --node-rank "${NODE_RANK:-0}" --nproc-per-node "${GPUS_PER_NODE:-8}" \
  --master-addr "${MASTER_ADDR:-localhost}" --master-port "${MASTER_PORT:-29500}" \
  "$PROGRAM" "${ARGUMENTS[@]}" "$@"
