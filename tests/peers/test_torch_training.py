"""Whole training against PyTorch in float64: its AdamW, its clipping, its schedulers, transformers' models.

The engine's weights before the first step are the start of both. transformers keeps the norms of Llama in
float32 even in a float64 model, about 1e-7 of a value; the limits here are far wider than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_case import Case, step_tokens
from safetensors.numpy import load_file

from exactmap.backend_c.run import RunOptions, run_plan
from exactmap.sim.schedules.build import OptimizerSettings

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.peer,
    # transformers leaves config.json to the garbage collector to close
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]

STEPS = 20
# A warm-up, most of a cosine, and a limit that every step's gradient is cut to.
SETTINGS = OptimizerSettings(
    lr=4e-3, lr_min=4e-4, warmup=5, steps=25, beta1=0.9, beta2=0.95, decay=0.1, clip=0.25, seed=23
)
CASES = {
    "gpt2-tied-1f1b": Case(kind="gpt", tied=True, schedule="1f1b", pp=4, optimizer=SETTINGS),
    "gpt2-untied-zb-h1": Case(kind="gpt", schedule="zb-h1", dp=2, m=3, optimizer=SETTINGS),
    "llama-untied-interleaved": Case(schedule="interleaved-1f1b", chunks=2, optimizer=SETTINGS),
    "llama-tied-zb-h1": Case(
        kv_heads=1, head_dim=16, tied=True, schedule="zb-h1", dp=2, m=2, optimizer=SETTINGS
    ),
    "llama-unclipped": Case(schedule="gpipe", pp=1, optimizer=replace(SETTINGS, clip=0.0)),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These models are too small to share out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Trainer:
    """What a PyTorch user writes: AdamW with decay on matrices, clipping, warm-up and cosine."""

    def __init__(self, model: Any, numbers: OptimizerSettings) -> None:
        self.model, self.numbers = model.train(), numbers
        matrices = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": numbers.decay}, {"params": others, "weight_decay": 0.0}],
            lr=numbers.lr,
            betas=(numbers.beta1, numbers.beta2),
            eps=numbers.eps,
        )
        schedulers = torch.optim.lr_scheduler
        warmup = schedulers.LinearLR(self.optimizer, 1.0 / numbers.warmup, 1.0, numbers.warmup - 1)
        cosine = schedulers.CosineAnnealingLR(
            self.optimizer, numbers.steps - numbers.warmup, eta_min=numbers.lr_min
        )
        self.scheduler = schedulers.SequentialLR(self.optimizer, [warmup, cosine], [numbers.warmup])

    def gradients(self) -> dict[str, Any]:
        return {name: p.grad.detach().clone().numpy() for name, p in self.model.named_parameters()}

    def backward(self, tokens: Any, targets: Any) -> float:
        self.optimizer.zero_grad()
        logits = self.model(torch.from_numpy(tokens.astype(np.int64))).logits
        flat = torch.from_numpy(targets.astype(np.int64)).flatten()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), flat)
        loss.backward()
        return float(loss.detach())

    def update(self) -> tuple[float, float]:
        """Clip, step; the norm before clipping, and the learning rate used."""
        limit = self.numbers.clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        (rate,) = {group["lr"] for group in self.optimizer.param_groups}
        self.optimizer.step()
        self.scheduler.step()
        return float(norm), rate


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_twenty_steps_are_those_of_pytorch(
    case: Case, data: Path, tmp_path: Path, load_checkpoint: Callable[[Path, Any], Any]
) -> None:
    """Each loss within 1e-5, each gradient of the first step within 1e-4; then the weights agree, too."""
    settings = case.optimizer
    plan = case.write(tmp_path / "a.plan")
    run_plan(plan, data, RunOptions(steps=0, out=tmp_path / "start"))
    run_plan(plan, data, RunOptions(steps=1, out=tmp_path / "one"))
    result = run_plan(plan, data, RunOptions(steps=STEPS, out=tmp_path / "end", timeout_s=60.0))
    moments = load_file(tmp_path / "one" / "optimizer.safetensors")
    model = load_checkpoint(tmp_path / "start", torch.float64)
    trainer = Trainer(model, settings)

    for step, said in enumerate(result.history):
        loss = trainer.backward(*step_tokens(case, data, step))
        grads = trainer.gradients() if step == 0 else {}
        norm, rate = trainer.update()

        assert said.loss == pytest.approx(loss, rel=1e-5), f"step {step}"
        assert said.lr == pytest.approx(rate, rel=1e-12), f"step {step}"
        assert said.grad_norm == pytest.approx(norm, rel=1e-4), f"step {step}"
        if step == 0:
            factor = min(1.0, settings.clip / norm) if settings.clip else 1.0

            assert {f"{name}.exp_avg" for name in grads} <= moments.keys()
            assert factor < 1.0 or not settings.clip, "the limit is felt"
            for name, grad in grads.items():
                got = moments[f"{name}.exp_avg"].astype(np.float64) / (1 - settings.beta1) / factor

                assert np.linalg.norm(got - grad) <= 1e-4 * max(np.linalg.norm(grad), 1e-6 * norm), name
    assert len(result.history) == STEPS

    ended = load_checkpoint(tmp_path / "end", torch.float64)
    for (name, ours), theirs in zip(ended.named_parameters(), model.parameters(), strict=True):
        distance = float(((ours - theirs).norm() / theirs.norm()).detach())

        assert distance <= 1e-3, name
