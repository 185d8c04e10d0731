"""Small plans, models and token files that the tests of the C engine run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import reference_numpy as ref
from numpy.typing import NDArray

from exactmap.sim.data.dataset import Dataset, build_dataset
from exactmap.sim.data.sampler import Sampler, Step
from exactmap.sim.data.tokens import open_tokens
from exactmap.sim.plan.writer import write_plan
from exactmap.sim.schedules.build import OptimizerSettings, build_plan
from exactmap.sim.workload.model import ModelConfig, ModelKind

__all__ = ["Case", "edit", "make_data", "step_tokens"]

_WORDS = b"def self return import for in range class None True if else not and or x y value print\n".split()
_OPTIMIZER = OptimizerSettings(lr=2e-3, lr_min=2e-4, warmup=3, steps=20, clip=1.0, seed=11)


@dataclass(frozen=True, slots=True)
class Case:
    """One plan: the model's shape, the batch, how it is cut and ordered."""

    kind: str = "llama"
    layers: int = 4
    hidden: int = 32
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 8
    ffn: int = 48
    vocab: int = 259
    tied: bool = False
    seq: int = 24
    microbatch: int = 2
    m: int = 4
    schedule: str = "1f1b"
    pp: int = 2
    chunks: int = 1
    dp: int = 1
    slices: int = 1
    late_norm: bool = False
    shard_params: bool = False
    optimizer: OptimizerSettings = _OPTIMIZER

    def having(self, **changes: object) -> Case:
        """The same case with other fields."""
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def model(self) -> ModelConfig:
        """The shape as the planner knows it."""
        return ModelConfig(
            ModelKind(self.kind),
            layers=self.layers,
            hidden=self.hidden,
            heads=self.heads,
            kv_heads=self.heads if self.kind == "gpt" else self.kv_heads,
            head_dim=self.head_dim,
            ffn=self.ffn,
            vocab=self.vocab,
            positions=self.seq + 8,
            tied=self.tied,
        )

    @property
    def reference(self) -> ref.Model:
        """The shape as the float64 reference knows it."""
        shape = self.model
        return ref.Model(
            kind="llama" if self.kind == "llama" else "gpt2",
            layers=shape.layers,
            hidden=shape.hidden,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            ffn=shape.ffn,
            vocab=shape.vocab,
            positions=shape.positions,
            norm_eps=shape.norm_eps,
            rope_theta=shape.rope_theta,
            tied=shape.tied,
        )

    @property
    def step(self) -> Step:
        """Shape of one training step."""
        return Step(self.dp, self.m, self.microbatch)

    def text(self) -> str:
        """The plan as text."""
        plan = build_plan(
            self.model,
            schedule=self.schedule,
            pp=self.pp,
            num_microbatches=self.m,
            seq=self.seq,
            microbatch=self.microbatch,
            chunks=self.chunks,
            dp=self.dp,
            slices=self.slices,
            clock="free" if self.late_norm else "barrier",
            late_norm=self.late_norm,
            shard_params=self.shard_params,
            optimizer=self.optimizer,
        )
        return write_plan(plan).decode()

    def write(self, path: Path) -> Path:
        """Write the plan file."""
        path.write_text(self.text())
        return path


def edit(path: Path, change: Callable[[str], str]) -> Path:
    """Change a plan's text and write it with a fitting hash."""
    lines = change(path.read_text()).split("\n", 2)
    lines[1] = f"body sha256={sha256(lines[2].encode()).hexdigest()}"
    path.write_text("\n".join(lines))
    return path


def make_data(folder: Path) -> Dataset:
    """A data set of a few files of made-up text."""
    rng = np.random.default_rng(5)
    source = folder / "text"
    source.mkdir()
    for number in range(12):
        words = rng.choice(np.array(_WORDS, dtype=object), 400)
        (source / f"file{number:02}.py").write_bytes(b" ".join(words.tolist()))
    return build_dataset([source], folder / "data", val_fraction=0.2)


def step_tokens(case: Case, data: Path, number: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Inputs and targets of training step `number`, each of shape (samples of the step, seq), in order."""
    tokens = open_tokens(data / "train.tok").tokens
    sampler = Sampler(len(tokens), case.seq, case.optimizer.seed)
    windows = [
        window
        for replica in range(case.dp)
        for index in range(case.m)
        for window in sampler.microbatch(case.step, number, replica, index)
    ]
    rows = np.stack([tokens[w * case.seq : w * case.seq + case.seq + 1] for w in windows]).astype(np.int32)
    return rows[:, :-1], rows[:, 1:]
