"""A Llama in plain PyTorch ops, trained as its users train: the peer that the engine's speed is held against.

    python tests/peers/torch_llama.py JOB

JOB is a JSON file: `weights` (safetensors under Hugging Face names), `tokens` (a .npy of shape [steps, batch,
seq + 1]), `model` (layers, heads, kv_heads, head_dim, norm_eps, rope_theta), `optimizer` (the numbers of a
plan's `train` line), `microbatch`, `threads`. float32, eager, the fused AdamW. Prints one JSON object:
`step_ns` and `losses`, one a step. Its own process, so that no thread of another library is awake beside it.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nn
from safetensors.torch import load_file

__all__ = ["Llama", "learning_rate", "train"]


class Llama:
    """Parameters in a dictionary; attention by PyTorch's fused kernel."""

    def __init__(self, params: dict[str, torch.Tensor], shape: dict[str, Any], seq: int) -> None:
        self.params, self.shape = params, shape
        half = torch.arange(0, shape["head_dim"], 2, dtype=torch.float64) / shape["head_dim"]
        angles = torch.arange(seq, dtype=torch.float64)[:, None] * shape["rope_theta"] ** -half
        angles = torch.cat([angles, angles], dim=-1)
        self.cos, self.sin = angles.cos().float(), angles.sin().float()

    def _turn(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat([-second, first], dim=-1) * self.sin

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return nn.rms_norm(x, (x.shape[-1],), self.params[f"{name}.weight"], self.shape["norm_eps"])

    def _layer(self, x: torch.Tensor, base: str) -> torch.Tensor:
        rows, seq, _ = x.shape

        def linear(value: torch.Tensor, name: str) -> torch.Tensor:
            return nn.linear(value, self.params[f"{base}.{name}.weight"])

        def heads(name: str, count: int) -> torch.Tensor:
            return linear(n, f"self_attn.{name}").view(rows, seq, count, -1).transpose(1, 2)

        n = self._norm(x, f"{base}.input_layernorm")
        num_heads, num_kv = self.shape["heads"], self.shape["kv_heads"]
        mixed = nn.scaled_dot_product_attention(
            self._turn(heads("q_proj", num_heads)),
            self._turn(heads("k_proj", num_kv)),
            heads("v_proj", num_kv),
            is_causal=True,
            enable_gqa=num_kv != num_heads,
        )
        x = x + linear(mixed.transpose(1, 2).reshape(rows, seq, -1), "self_attn.o_proj")
        n = self._norm(x, f"{base}.post_attention_layernorm")
        return x + linear(nn.silu(linear(n, "mlp.gate_proj")) * linear(n, "mlp.up_proj"), "mlp.down_proj")

    def loss_sum(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum of the tokens' cross-entropies."""
        x = nn.embedding(tokens, self.params["model.embed_tokens.weight"])
        for index in range(self.shape["layers"]):
            x = self._layer(x, f"model.layers.{index}")
        head = self.params.get("lm_head.weight", self.params["model.embed_tokens.weight"])
        logits = nn.linear(self._norm(x, "model.norm"), head)
        return nn.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


def learning_rate(numbers: dict[str, float], step: int) -> float:
    """Linear warm-up, then half a cosine."""
    if step < numbers["warmup"]:
        return numbers["lr"] * (step + 1) / numbers["warmup"]
    done = min(1.0, (step - numbers["warmup"]) / (numbers["steps"] - numbers["warmup"]))
    return numbers["lr_min"] + (numbers["lr"] - numbers["lr_min"]) * (1 + math.cos(math.pi * done)) / 2


def train(job: dict[str, Any]) -> dict[str, list[float]]:
    """Train on the job's tokens; nanoseconds and mean loss of each step."""
    torch.set_num_threads(job["threads"])
    numbers = job["optimizer"]
    tokens = torch.from_numpy(np.load(job["tokens"]).astype(np.int64))
    params = {name: value.requires_grad_() for name, value in load_file(job["weights"]).items()}
    model = Llama(params, job["model"], tokens.shape[2] - 1)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in params.values() if p.ndim > 1], "weight_decay": numbers["decay"]},
            {"params": [p for p in params.values() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=numbers["lr"],
        betas=(numbers["beta1"], numbers["beta2"]),
        eps=numbers["eps"],
        fused=True,
    )
    step_ns: list[float] = []
    losses: list[float] = []
    for step, batch in enumerate(tokens):
        start = time.perf_counter_ns()
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in batch.split(job["microbatch"]):
            loss = model.loss_sum(part[:, :-1], part[:, 1:]) / batch[:, 1:].numel()
            loss.backward()
            total += loss.item()
        if numbers["clip"] > 0:
            torch.nn.utils.clip_grad_norm_(params.values(), numbers["clip"])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(numbers, step)
        optimizer.step()
        step_ns.append(time.perf_counter_ns() - start)
        losses.append(total)
    return {"step_ns": step_ns, "losses": losses}


if __name__ == "__main__":
    json.dump(train(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), sys.stdout)
