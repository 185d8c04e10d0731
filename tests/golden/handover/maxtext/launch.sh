#!/bin/bash
# MaxText on the layout of an exactmap plan.
# plan: small.plan, sha256 0000000000000000000000000000000000000000000000000000000000000000
# names as in AI-Hypercomputer/maxtext e591f30c (2026-08-22); what they cannot say: cannot.md
set -euo pipefail
# Run in MaxText's folder, or set MAXTEXT_CONFIG; a process per host or GPU.
# Arguments are passed on: run_name=.. base_output_directory=.. dataset_type=..
SETTINGS=(
  model_name=default
  decoder_block=llama2
  base_num_decoder_layers=4
  base_emb_dim=64
  base_num_query_heads=4
  base_num_kv_heads=2
  head_dim=16
  base_mlp_dim=192
  vocab_size=259
  normalization_layer_epsilon=1e-05
  logits_via_embedding=false
  enable_dropout=false
  mlp_activations='["silu","linear"]'
  rope_max_timescale=10000
  hardware=gpu
  ici_tensor_parallelism=2
  ici_context_parallelism=1
  ici_expert_parallelism=1
  ici_pipeline_parallelism=2
  ici_data_parallelism=2
  ici_fsdp_parallelism=1
  dcn_data_parallelism=1
  dcn_pipeline_parallelism=1
  shard_optimizer_over_data=true
  remat_policy=minimal_with_context
  num_layers_per_pipeline_stage=2
  num_pipeline_repeats=1
  pipeline_parallel_layers=4
  num_pipeline_microbatches=8
  per_device_batch_size=2.0
  max_target_length=64
  steps=1000
  opt_type=adamw
  learning_rate=0.0003
  lr_schedule_type=cosine
  learning_rate_final_fraction=0.1
  learning_rate_schedule_steps=1000
  warmup_steps_fraction=0.1
  adam_b1=0.9
  adam_b2=0.95
  adam_eps=1e-08
  adam_weight_decay=0.1
  gradient_clipping_threshold=1.0
  init_weights_seed=0
  data_shuffle_seed=0
  weight_dtype=float32
  dtype=float32
  grad_dtype=float32
  mu_dtype=float32
)
[ -z "${RANK:-}" ] || SETTINGS+=(hardware=gpu_multiprocess)  # a process per GPU
CONFIG="${MAXTEXT_CONFIG:-src/maxtext/configs/base.yml}"
exec python3 -m maxtext.trainers.pre_train.train "$CONFIG" \
  "${SETTINGS[@]}" "$@"
