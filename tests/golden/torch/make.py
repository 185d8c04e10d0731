"""Make the golden files here: two small models of transformers, their values and gradients in PyTorch.

    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch==2.13.0 transformers numpy
    /tmp/torch/bin/python tests/golden/torch/make.py

Each file holds the model's float32 weights under Hugging Face names (`p/...`), a batch (`tokens`,
`targets`), and what PyTorch computes from them in float64: `logits`, the mean loss `loss`, its gradients
(`g/...`, rounded to float32), and the loss before each of ten AdamW steps on that batch (`losses`), with
clipped gradients, and decay on matrices alone. `hyper` is lr, beta1, beta2, eps, weight decay, clip.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

HYPER = {"lr": 3e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0}
STEPS = 10


def build() -> dict[str, torch.nn.Module]:
    """Small models whose shapes still exercise groups, odd widths and both kinds of head."""
    gpt2 = GPT2Config(
        vocab_size=61, n_positions=24, n_embd=24, n_layer=2, n_head=3, n_inner=40,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, activation_function="gelu_new",
    )  # fmt: skip
    llama = LlamaConfig(
        vocab_size=61, max_position_embeddings=24, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, intermediate_size=40, rms_norm_eps=1e-5, rope_theta=10000.0,
        tie_word_embeddings=False, attention_bias=False, mlp_bias=False,
    )  # fmt: skip
    for config in (gpt2, llama):
        config._attn_implementation = "eager"
    return {"gpt2": GPT2LMHeadModel(gpt2), "llama": LlamaForCausalLM(llama)}


def make(name: str, model: torch.nn.Module) -> None:
    """Write one file."""
    torch.manual_seed(11)
    with torch.no_grad():
        for tensor in model.parameters():
            noise = torch.randn(tensor.shape)
            tensor.copy_(1.0 + 0.1 * noise if tensor.ndim == 1 and tensor.mean() > 0.5 else 0.2 * noise)
    model = model.double().train()
    tokens = torch.randint(0, 61, (2, 24))
    targets = torch.randint(0, 61, (2, 24))
    arrays: dict[str, np.ndarray] = {"tokens": tokens.int().numpy(), "targets": targets.int().numpy()}
    for key, tensor in model.named_parameters():
        arrays[f"p/{key}"] = tensor.detach().float().numpy()

    def loss() -> torch.Tensor:
        logits = model(tokens).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    arrays["logits"] = model(tokens).logits.detach().numpy()
    first = loss()
    first.backward()
    arrays["loss"] = first.detach().numpy()
    for key, tensor in model.named_parameters():
        arrays[f"g/{key}"] = tensor.grad.float().numpy()

    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": HYPER["weight_decay"]},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=HYPER["lr"], betas=(HYPER["beta1"], HYPER["beta2"]), eps=HYPER["eps"],
    )  # fmt: skip
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), HYPER["clip"])
        optimizer.step()
        losses.append(value.item())
    arrays["losses"] = np.array(losses)
    arrays["hyper"] = np.array(list(HYPER.values()))
    np.savez_compressed(Path(__file__).parent / f"{name}.npz", **arrays)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for model_name, built in build().items():
        make(model_name, built)
