"""Text becomes token files: splits of whole files, strict reading, the same samples for every reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.errors import InvalidInputError
from exactmap.sim.data import corpus
from exactmap.sim.data.dataset import (
    BYTE_VOCAB,
    build_dataset,
    decode_bytes,
    encode_bytes,
    import_tokens,
    open_dataset,
)
from exactmap.sim.data.sampler import Sampler, Step, validation_windows
from exactmap.sim.data.tokens import HEADER_BYTES, TokenWriter, open_tokens


def write_tree(root: Path, num_files: int = 40) -> Path:
    for number in range(num_files):
        path = root / f"pack{number % 3}" / f"file{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# file {number}\nprint({number})\n" * 5)
    return root


def test_every_byte_survives(tmp_path: Path) -> None:
    """Each document is begin, bytes, end; decoding drops the specials alone."""
    text = bytes(range(1, 256)) + "déjà vu".encode()

    assert encode_bytes(text)[[0, -1]].tolist() == [256, 257]
    assert decode_bytes(encode_bytes(text)) == text


def test_validation_files_stay_out_of_training(tmp_path: Path) -> None:
    """A file is on one side whole, and its side depends on its name alone."""
    source = write_tree(tmp_path / "src")
    dataset = build_dataset([source], tmp_path / "out", val_fraction=0.2)
    sides = {}
    for split in ("train", "val"):
        tokens = np.asarray(open_tokens(tmp_path / "out" / f"{split}.tok", verify=True).tokens)
        starts = np.flatnonzero(tokens == 256)
        sides[split] = {decode_bytes(part) for part in np.split(tokens, starts[1:])}

    assert sides["train"].isdisjoint(sides["val"])
    assert len(sides["train"]) == dataset.train.num_documents
    assert len(sides["val"]) == dataset.val.num_documents > 0
    expected = {
        d.path.read_bytes() for d in corpus.find_documents([source]) if corpus.in_validation(d.name, 0.2)
    }
    assert sides["val"] == expected


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    """Nothing depends on the order in which a folder lists its files."""
    source = write_tree(tmp_path / "src")
    first = build_dataset([source], tmp_path / "a")
    second = build_dataset([source], tmp_path / "b")

    assert first.train == second.train
    assert (tmp_path / "a" / "train.tok").read_bytes() == (tmp_path / "b" / "train.tok").read_bytes()


def test_the_standard_library_is_found_without_tests() -> None:
    """The default corpus: this Python's own sources, no tests, no installed packages."""
    names = [document.name for document in corpus.standard_library()]

    assert "json/decoder.py" in names
    assert names == sorted(names, key=str.encode)
    assert not [name for name in names if "site-packages/" in name or name.startswith("test/")]


def test_a_single_file_gives_its_last_part(tmp_path: Path) -> None:
    """One file cannot be split by whole files: its last lines are held out."""
    path = tmp_path / "book.txt"
    path.write_text("".join(f"line {i}\n" for i in range(1000)))
    build_dataset([path], tmp_path / "out", val_fraction=0.1)
    train, val = (
        decode_bytes(np.asarray(open_tokens(tmp_path / "out" / f"{s}.tok").tokens)) for s in ("train", "val")
    )

    assert train + val == path.read_bytes()
    assert 0.05 < len(val) / len(train + val) < 0.15


@pytest.mark.parametrize(
    ("where", "value", "field"),
    [
        (0, b"X", "magic"),
        (8, b"\x40", "header size"),
        (12, b"\x03", "bytes per token"),
        (16, b"\0" * 8, "vocabulary"),
        (64, b"\xff", "tokenizer"),
        (100, b"\x01", "reserved bytes"),
        (24, b"\x01", "cut short"),
        (HEADER_BYTES + 3, b"\x02", "damaged"),
    ],
)
def test_a_damaged_token_file_is_refused(tmp_path: Path, where: int, value: bytes, field: str) -> None:
    """Each field is checked, and the tokens against their hash; the message names what is wrong."""
    path = tmp_path / "a.tok"
    with TokenWriter(path, 2, BYTE_VOCAB, "bytes") as writer:
        writer.write(np.arange(100) % 256)
    data = bytearray(path.read_bytes())
    data[where : where + len(value)] = value
    path.write_bytes(data)
    with pytest.raises(InvalidInputError, match=field):
        open_tokens(path, verify=True)


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    """A token outside of the vocabulary ends the writing; neither file nor temporary file stays."""
    with (
        pytest.raises(InvalidInputError, match="outside of the vocabulary"),
        TokenWriter(tmp_path / "a.tok", 2, 10, "own") as writer,
    ):
        writer.write(np.array([1, 2, 10]))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("token_bytes", [2, 4])
def test_token_files_made_elsewhere_are_taken_over(tmp_path: Path, token_bytes: int) -> None:
    """Raw numbers behind a foreign header, with a stated vocabulary."""
    numbers = np.arange(5000) % 1000
    for name in ("train.bin", "val.bin"):
        (tmp_path / name).write_bytes(b"H" * 1024 + numbers.astype(f"<u{token_bytes}").tobytes())
    arguments = {"token_bytes": token_bytes, "tokenizer": "gpt2", "skip_bytes": 1024}
    paths = (tmp_path / "train.bin", tmp_path / "val.bin", tmp_path / "out")
    dataset = import_tokens(*paths, vocab=1000, **arguments)  # type: ignore[arg-type]

    assert open_dataset(tmp_path / "out", verify=True) == dataset
    assert open_tokens(tmp_path / "out" / "train.tok").tokens.tolist() == numbers.tolist()
    with pytest.raises(InvalidInputError, match="got 999, expected 0 to 998"):
        import_tokens(*paths, vocab=999, **arguments)  # type: ignore[arg-type]


def test_llm_c_headers_are_recognised(tmp_path: Path) -> None:
    """Tokens are never read out of another program's header."""
    raw = (20240520).to_bytes(4, "little") + bytes(1020) + bytes(200)
    (tmp_path / "train.bin").write_bytes(raw)
    with pytest.raises(InvalidInputError, match=r"llm\.c's header") as caught:
        import_tokens(
            tmp_path / "train.bin", tmp_path / "train.bin", tmp_path, token_bytes=2, vocab=9, tokenizer="x"
        )

    assert caught.value.hint == "skip 1024 bytes"


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["nowhere"], "no such file or folder"),
        (["empty"], "the data set is empty"),
        (["zero.bin"], "no text"),
    ],
)
def test_sources_that_give_nothing_are_refused(tmp_path: Path, sources: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "zero.bin").write_bytes(b"a\0b")
    with pytest.raises(InvalidInputError, match=message):
        build_dataset([tmp_path / name for name in sources], tmp_path / "out")


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    """A token file that was exchanged is not the one that the description names."""
    source = write_tree(tmp_path / "src")
    build_dataset([source], tmp_path / "a", val_fraction=0.2)
    build_dataset([source], tmp_path / "b", val_fraction=0.5)
    (tmp_path / "a" / "val.tok").write_bytes((tmp_path / "b" / "val.tok").read_bytes())
    with pytest.raises(InvalidInputError, match="not the one that the data set describes"):
        open_dataset(tmp_path / "a")


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 2}', "[" * 10000])
def test_a_malformed_description_is_an_error_not_a_crash(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InvalidInputError, match="not a data set of this version"):
        open_dataset(tmp_path)


@given(windows=st.integers(1, 3000), seq=st.integers(1, 9), seed=st.integers(0, 2**63 - 1))
def test_an_epoch_reads_every_window_once(windows: int, seq: int, seed: int) -> None:
    """The sampler is a permutation of the windows in each epoch."""
    sampler = Sampler(windows * seq + 1, seq, seed)
    epoch = [sampler.window(g) for g in range(windows)]

    assert sorted(epoch) == list(range(windows))


def test_epochs_differ_and_seeds_differ() -> None:
    sampler = Sampler(100_001, 10, 3)
    epochs = [[sampler.window(e * sampler.num_windows + i) for i in range(50)] for e in range(2)]

    assert epochs[0] != epochs[1]
    assert epochs[0] != [Sampler(100_001, 10, 4).window(i) for i in range(50)]


def test_a_step_is_cut_into_replicas_and_microbatches() -> None:
    """Microbatch b of replica d is the step's number d*m + b."""
    sampler, step = Sampler(10_001, 10, 3), Step(dp=2, m=3, microbatch=4)
    together = [sampler.window(5 * step.num_samples + q) for q in range(step.num_samples)]
    parts = [sampler.microbatch(step, 5, d, b).tolist() for d in range(2) for b in range(3)]

    assert [window for part in parts for window in part] == together


def test_validation_reads_from_all_over_the_file() -> None:
    assert validation_windows(1001, 10, 4).tolist() == [0, 25, 50, 75]
    assert validation_windows(31, 10, 99).tolist() == [0, 1, 2]


def test_a_file_shorter_than_a_sequence_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="shorter than one sequence"):
        Sampler(10, 10, 0)
