"""Checkpoints pass between the engine and transformers: what one saves, the other reads as the same model."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_case import Case, step_tokens
from numerics_library import Buffers, Stage, config_of, load
from numpy.typing import NDArray
from safetensors.numpy import load_file

from exactmap.backend_c.locate import library_path
from exactmap.backend_c.run import RunOptions, run_plan, sample
from exactmap.errors import ExactmapError
from exactmap.sim.data.sampler import validation_windows
from exactmap.sim.data.tokens import open_tokens
from exactmap.sim.plan.check import load_plan
from exactmap.sim.verbs.plan import plan as make_plan

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.peer,
    # transformers leaves config.json to the garbage collector to close
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]

Load = Callable[[Path, Any], Any]
Tokens = NDArray[np.int32]

# Both families, both kinds of head; every head its own keys, groups of two, and one group of four whose heads
# together are wider than the model.
CASES = {
    "gpt2-tied": Case(kind="gpt", tied=True),
    "gpt2-untied": Case(kind="gpt", tied=False, pp=4),
    "llama-untied": Case(kv_heads=4),
    "llama-grouped": Case(kv_heads=2, dp=2, m=2, schedule="zb-h1"),
    "llama-tied-one-group": Case(kv_heads=1, head_dim=16, tied=True),
}
BATCH = 3


@pytest.fixture(scope="module")
def numerics() -> ctypes.CDLL:
    return load(library_path())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These models are too small to share out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def engine_logits(lib: ctypes.CDLL, case: Case, weights: Path, tokens: Tokens) -> NDArray[np.float32]:
    """Logits of every position, (sequences, seq, vocab), by the engine's own passes."""
    params = {name: value.astype(np.float64) for name, value in load_file(weights).items()}
    rows, seq = tokens.shape
    with Stage(lib, config_of(case.reference, rows, seq)) as stage:
        stage.set_params(params)
        tokens = np.ascontiguousarray(tokens)
        flat = stage.logits(Buffers(stage), all_positions=True, last_position=0, tokens=tokens)
    return flat.reshape(rows, seq, -1)


def mean_loss(model: Any, tokens: Tokens, targets: Tokens) -> float:
    """Cross-entropy per token in nats, from transformers' logits."""
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens.astype(np.int64))).logits.double()
    flat = torch.from_numpy(targets.astype(np.int64)).flatten()
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), flat))


def assert_likeliest(folder: Path, model: Any, num_tokens: int = 20) -> None:
    """Each token that the engine takes at temperature 0 is one that transformers finds the likeliest."""
    prompt = [256, *b"def "]
    words = sample(folder, prompt_tokens=prompt, num_tokens=num_tokens, temperature=0.0).split()
    text = [*prompt, *map(int, words)]
    with torch.no_grad():
        choices = model(torch.tensor([text[:-1]])).logits[0].numpy()[len(prompt) - 1 :]
    chosen = np.take_along_axis(choices, np.array(text[len(prompt) :])[:, None], axis=1)[:, 0]

    assert len(words) == num_tokens
    np.testing.assert_allclose(chosen, choices.max(1), atol=1e-4)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_transformers_reads_what_a_run_saves(
    case: Case, data: Path, tmp_path: Path, load_checkpoint: Load, numerics: ctypes.CDLL
) -> None:
    """A trained folder loads without a missing tensor: same logits, validation loss and likeliest text."""
    plan = case.write(tmp_path / "a.plan")
    result = run_plan(plan, data, RunOptions(steps=15, out=tmp_path / "out", eval_sequences=7))
    model = load_checkpoint(tmp_path / "out", torch.float32)

    assert result.first_loss is not None
    assert result.loss is not None
    assert result.loss < result.first_loss - 0.5, "the model has learnt something"
    assert model.dtype == torch.float32
    assert sum(p.numel() for p in model.parameters()) == case.model.num_parameters()

    tokens = np.random.default_rng(9).integers(0, case.vocab, (BATCH, case.seq)).astype(np.int32)
    got = engine_logits(numerics, case, tmp_path / "out" / "model.safetensors", tokens)
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens.astype(np.int64))).logits.numpy()

    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()

    held_out = open_tokens(data / "val.tok").tokens
    windows = validation_windows(len(held_out), case.seq, 7)
    rows = np.stack([held_out[w * case.seq : w * case.seq + case.seq + 1] for w in windows]).astype(np.int32)

    assert result.val_loss == pytest.approx(mean_loss(model, rows[:, :-1], rows[:, 1:]), rel=1e-5)

    assert_likeliest(tmp_path / "out", model)


def made_by_transformers(case: Case, seed: int = 4) -> Any:
    """A model of transformers with weights large enough that all parts of it matter."""
    shape = case.model
    if shape.kind.value == "gpt":
        config = transformers.GPT2Config(
            vocab_size=shape.vocab,
            n_positions=shape.positions,
            n_embd=shape.hidden,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_inner=shape.ffn,
            layer_norm_epsilon=1e-4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=256,
            eos_token_id=257,
            tie_word_embeddings=shape.tied,
        )
    else:
        config = transformers.LlamaConfig(
            vocab_size=shape.vocab,
            max_position_embeddings=shape.positions,
            hidden_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            intermediate_size=shape.ffn,
            rms_norm_eps=1e-4,
            bos_token_id=256,
            eos_token_id=257,
            tie_word_embeddings=shape.tied,
        )
    model = transformers.AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            is_gain = tensor.ndim == 1 and bool((tensor == 1).all())
            tensor.copy_(1.0 + 0.1 * noise if is_gain else 0.2 * noise)
    return model.eval()


def scenario_for(case: Case, folder: Path) -> Path:
    """A scenario whose model is the folder's config.json."""
    path = folder.parent / "scenario.yaml"
    path.write_text(
        f"""exactmap: 1
cluster: {{catalog: cpu-host, num_gpus: {case.pp * case.dp}}}
model: {{huggingface: {folder.name}/config.json}}
training:
  sequence: {case.seq} tokens
  batch: {case.step.num_samples} sequences
  steps: 20
  seed: 3
  precision: fp32
  optimizer: {{lr: 2e-3, warmup_steps: 3}}
parallel:
  tp: 1
  pp: {case.pp}
  dp: {case.dp}
  chunks: 1
  microbatch: {case.microbatch}
  schedule: {case.schedule}
execution: {{engine: cpu}}
"""
    )
    return path


def train_from(folder: Path, case: Case, data: Path, **options: Any) -> tuple[Any, Tokens, Tokens]:
    """Plan for the folder's model, run from its weights; the result, and the tokens of the first step."""
    plan_path = folder.parent / "made.plan"
    make_plan(scenario_for(case, folder), out=plan_path)
    plan, _ = load_plan(plan_path)
    drawn = replace(case, m=plan.train.m, optimizer=replace(case.optimizer, seed=plan.train.seed))
    result = run_plan(plan_path, data, RunOptions(init=folder, **options))
    return result, *step_tokens(drawn, data, 0)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_run_starts_from_what_transformers_saves(case: Case, data: Path, tmp_path: Path) -> None:
    """config.json makes the plan, the weights make the first loss; and saved again they are the same bits."""
    model = made_by_transformers(case)
    folder = tmp_path / "theirs"
    model.save_pretrained(folder)
    result, tokens, targets = train_from(folder, case, data, steps=1)
    run_plan(tmp_path / "made.plan", data, RunOptions(steps=0, init=folder, out=tmp_path / "ours"))
    theirs = load_file(folder / "model.safetensors")
    ours = load_file(tmp_path / "ours" / "model.safetensors")

    assert result.first_loss == pytest.approx(mean_loss(model, tokens, targets), rel=1e-5)
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        np.testing.assert_array_equal(ours[name], weight, err_msg=name)
    assert_likeliest(folder, model)


def test_weights_in_bfloat16_start_a_run(data: Path, tmp_path: Path) -> None:
    """Most published weights are bfloat16: they are read exactly."""
    case = CASES["llama-grouped"]
    model = made_by_transformers(case).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "theirs")
    result, tokens, targets = train_from(tmp_path / "theirs", case, data, steps=1)

    assert result.first_loss == pytest.approx(mean_loss(model.float(), tokens, targets), rel=1e-5)


def turn(folder: Path, nested: bool) -> None:
    """Give a saved Llama another base of its rotation: nested as transformers 5 writes it, or plain."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("rope_theta", None)
    config.pop("rope_parameters", None)
    base = {"rope_theta": 100.0}
    config |= {"rope_parameters": {**base, "rope_type": "default"}} if nested else base
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("nested", [False, True], ids=["rope_theta", "rope_parameters"])
def test_plan_and_sample_read_the_base_of_the_rotation(
    nested: bool, data: Path, tmp_path: Path, load_checkpoint: Load
) -> None:
    """However config.json writes it, first loss and likeliest text are those of the turned model."""
    case = CASES["llama-grouped"]
    model = made_by_transformers(case)
    folder = tmp_path / "theirs"
    model.save_pretrained(folder)
    turn(folder, nested)
    turned = load_checkpoint(folder, torch.float32)
    result, tokens, targets = train_from(folder, case, data, steps=1)
    expected = mean_loss(turned, tokens, targets)

    assert expected != pytest.approx(mean_loss(model, tokens, targets), rel=1e-4), "the base matters"
    assert result.first_loss == pytest.approx(expected, rel=1e-5)
    assert_likeliest(folder, turned)


def test_a_scaled_rotation_is_refused(data: Path, tmp_path: Path) -> None:
    """The engine has no scaled rotary positions: it says so, however config.json asks for them."""
    case = CASES["llama-grouped"]
    folder = tmp_path / "theirs"
    made_by_transformers(case).save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"] = {"rope_theta": 10000.0, "rope_type": "linear", "factor": 4.0}
    path.write_text(json.dumps(config))
    with pytest.raises(ExactmapError, match="rope"):
        sample(folder, prompt_tokens=[256], num_tokens=1)
