"""Weights go in and out: read by the safetensors package and back, and what a sample is made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import reference_numpy as ref
from engine_case import Case, make_data, step_tokens
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file

from exactmap.backend_c.run import RunOptions, run_plan, sample
from exactmap.errors import ExactmapError, InvalidInputError

pytestmark = pytest.mark.sanitize


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("engine")).folder


def test_the_package_reads_what_the_engine_writes(data: Path, tmp_path: Path) -> None:
    """Hugging Face names and layouts, float32, and the `format` that transformers asks for."""
    case = Case(kind="gpt", tied=True)
    run_plan(case.write(tmp_path / "a.plan"), data, RunOptions(steps=1, out=tmp_path / "out"))
    with safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
    weights = load_file(tmp_path / "out" / "model.safetensors")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    expected = ref.initial(case.reference, np.random.default_rng(0))

    assert {name: w.shape for name, w in weights.items()} == {name: w.shape for name, w in expected.items()}
    assert {w.dtype for w in weights.values()} == {np.dtype(np.float32)}
    assert config["model_type"] == "gpt2"
    assert (config["n_embd"], config["n_layer"], config["vocab_size"]) == (
        case.hidden,
        case.layers,
        case.vocab,
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_engine_reads_what_the_package_writes(dtype: str, data: Path, tmp_path: Path) -> None:
    """Weights in three dtypes, without the outer prefix, give the loss that float64 finds for them."""
    case = Case()
    params = ref.initial(case.reference, np.random.default_rng(3))
    stored, rounded = {}, {}
    for name, value in params.items():
        wide = value.astype(np.float32)
        if dtype == "bfloat16":  # numpy has none: keep the upper half of each float
            wide = (wide.view(np.uint32) & 0xFFFF0000).view(np.float32)
        elif dtype == "float16":
            wide = wide.astype(np.float16).astype(np.float32)
        rounded[name] = wide.astype(np.float64)
        stored[name.removeprefix("model.")] = wide
    save_as(stored, dtype, tmp_path / "w.safetensors")
    tokens, targets = step_tokens(case, data, 0)
    total, _, _ = ref.loss_and_gradients(case.reference, rounded, tokens, targets, 1.0)
    plan = case.write(tmp_path / "a.plan")
    result = run_plan(plan, data, RunOptions(steps=1, init=tmp_path / "w.safetensors"))

    assert result.first_loss == pytest.approx(total / tokens.size, rel=1e-6)


def save_as(weights: dict[str, np.ndarray], dtype: str, path: Path) -> None:
    if dtype != "bfloat16":
        save_file({name: w.astype(dtype) for name, w in weights.items()}, path)
        return
    halves = {n: (np.ascontiguousarray(w).view(np.uint32) >> 16).astype("<u2") for n, w in weights.items()}
    content = save(halves)  # as 16-bit integers; the header alone tells them from bfloat16
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].replace(b'"U16"', b'"BF16"')
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])


def test_a_dtype_that_is_no_weight_is_refused(data: Path, tmp_path: Path) -> None:
    case = Case()
    weights = ref.initial(case.reference, np.random.default_rng(3))
    save_file({name: w.astype(np.int32) for name, w in weights.items()}, tmp_path / "w.safetensors")
    with pytest.raises(InvalidInputError, match="got dtype I32, expected F32, BF16 or F16"):
        run_plan(case.write(tmp_path / "a.plan"), data, RunOptions(steps=1, init=tmp_path / "w.safetensors"))


@pytest.mark.parametrize("case", [Case(tied=True), Case(kind="gpt")], ids=["llama", "gpt"])
def test_greedy_samples_are_the_likeliest_tokens(case: Case, data: Path, tmp_path: Path) -> None:
    """At temperature 0 each token is the float64 model's choice, also when the window slides."""
    run_plan(case.write(tmp_path / "a.plan"), data, RunOptions(steps=20, out=tmp_path / "out"))
    params = {k: v.astype(np.float64) for k, v in load_file(tmp_path / "out" / "model.safetensors").items()}
    prompt = [256, *b"def "]
    length = case.model.positions
    made = [
        int(line)
        for line in sample(
            tmp_path / "out", prompt_tokens=prompt, num_tokens=length + 10, temperature=0.0
        ).split()
    ]
    context = list(prompt)
    for token in made:
        logits = ref.logits(case.reference, params, np.array([context[-length:]], dtype=np.int32))[0, -1]
        top = np.sort(logits)[-2:]

        assert token == int(logits.argmax()) or top[1] - top[0] < 1e-4
        context.append(token)
    assert len(made) == length + 10


def test_samples_depend_on_the_seed_alone(data: Path, tmp_path: Path) -> None:
    """The same seed gives the same bytes; top-k 1 is the greedy choice."""
    case = Case()
    run_plan(case.write(tmp_path / "a.plan"), data, RunOptions(steps=20, out=tmp_path / "out"))

    def draw(**options: object) -> bytes:
        return sample(tmp_path / "out", prompt="import ", num_tokens=80, **options)  # type: ignore[arg-type]

    assert draw(seed=1) == draw(seed=1)
    assert draw(seed=1) != draw(seed=2)
    assert draw(top_k=1, seed=5) == draw(temperature=0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, 'got "bert", expected gpt2 or llama'),
        ({"hidden_size": 0}, "hidden_size: expected a whole number"),
        ({"hidden_size": "32"}, "hidden_size: expected a whole number"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling is not supported"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0}}, 'only "default" is supported'),
        ({"rope_parameters": {"rope_type": 3}}, 'only "default" is supported'),
        ({"rope_parameters": [1]}, "rope_parameters: expected an object"),
        ({"rope_parameters": {"rope_theta": "x"}}, "rope_theta: expected a number"),
        ({"intermediate_size": 49}, "got shape"),
    ],
)
def test_a_wrong_config_is_refused(
    change: dict[str, object], message: str, data: Path, tmp_path: Path
) -> None:
    case = Case()
    run_plan(case.write(tmp_path / "a.plan"), data, RunOptions(steps=0, out=tmp_path / "out"))
    config = tmp_path / "out" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ExactmapError, match=message):
        sample(tmp_path / "out", num_tokens=1)


def test_a_prompt_outside_of_the_vocabulary_is_refused(data: Path, tmp_path: Path) -> None:
    run_plan(Case().write(tmp_path / "a.plan"), data, RunOptions(steps=0, out=tmp_path / "out"))
    with pytest.raises(InvalidInputError, match="outside of the vocabulary of 259"):
        sample(tmp_path / "out", prompt_tokens=[300], num_tokens=1)
