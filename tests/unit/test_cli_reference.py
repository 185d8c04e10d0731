"""docs/reference/cli.md keeps step with the program: every option, every exit code, every key."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

import exactmap
from exactmap import errors
from exactmap.sim.cli.main import app
from exactmap.sim.cost.host import (
    AllReduceTime,
    BytesTime,
    ElementsTime,
    HandOver,
    HostFacts,
    HostProfile,
    PassSample,
)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def _section(title: str) -> str:
    match = re.search(rf"(?ms)^### {title}\b.*?(?=^##)", PAGE)

    assert match is not None, f"no section for {title}"
    return match[0]


def _document(kind: str) -> set[str]:
    """Words in code type in the paragraph of a document, and those that all documents share."""
    match = re.search(rf"(?ms)^\*\*`[^\n]*?`{kind}`\*\* \(.*?(?=^\*\*|\Z)|^\*\*`{kind}`.*?(?=^\*\*|\Z)", PAGE)

    assert match is not None, f"no paragraph for {kind}"
    return set(re.findall(r"`([a-z0-9_]+)`", match[0])) | {"schema_version", "kind"}


def _keys(document: object, *, free: frozenset[str]) -> set[str]:
    """All keys of a document; below those in `free` the keys are data."""
    if isinstance(document, dict):
        inner = (_keys(value, free=free) for key, value in document.items() if key not in free)
        return set(document).union(*inner)
    if isinstance(document, (list, tuple)):
        return set().union(*(_keys(value, free=free) for value in document))
    return set()


FREE = frozenset({"busy_ns", "waiting_ns", "facts", "extra", "mesh", "links_by_flows", "series"})


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_every_option_is_explained(verb: str) -> None:
    text = _section(verb)
    for parameter in COMMANDS[verb].params:
        for name in (*parameter.opts, *parameter.secondary_opts):
            if name.startswith("-") and name not in {"--help", "-h"}:
                assert f"`{name}`" in text, f"{verb} {name}"


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_no_option_is_made_up(verb: str) -> None:
    known = {name for each in COMMANDS[verb].params for name in (*each.opts, *each.secondary_opts)}

    assert set(re.findall(r"`(--[a-z-]+)`", _section(verb))) <= known | {"--vocab", "--data", "--out"}


def test_verbs_are_those_of_the_package() -> None:
    """The command line, the Python package and this page have the same verbs; one is an option here."""
    verbs = set(exactmap.__all__) - {"ExactmapError", "__version__", "simulate_whole"}

    assert set(COMMANDS) == verbs == set(re.findall(r"(?m)^### (\w+)", PAGE))
    assert "`exactmap.simulate_whole`" in _section("simulate")


def test_every_exit_code_is_explained() -> None:
    codes = {int(code) for code in re.findall(r"(?m)^\| (\d+) \|", PAGE)}
    families = {getattr(errors, name) for name in errors.__all__ if name.endswith("Error")}

    assert codes == {0, 2, 130} | {family.exit_code for family in families}


@cache
def _planned() -> exactmap.sim.verbs.plan.PlanOutcome:  # type: ignore[name-defined]
    return exactmap.plan(ROOT / "scenarios" / "cpu-quick.yaml", ["cluster.num_gpus=4", "parallel.pp=[2,8]"])


def test_plan_document() -> None:
    document = _planned().to_dict()
    keys = _keys(document, free=FREE)

    assert document["rejected"]
    assert document["lost"]
    assert keys <= _document("plan"), keys - _document("plan")


@cache
def _accuracy() -> dict[str, object]:
    return exactmap.validate().to_dict()


def test_accuracy_document() -> None:
    """Names of sets, GPUs and grids are data; what is said of each is explained."""
    document = _accuracy()
    assert list(document)[:2] == ["schema_version", "kind"]
    held_out, grids = document["held_out"], document["grids"]
    assert isinstance(held_out, dict)
    assert isinstance(grids, dict)
    inside = [part for parts in held_out.values() for part in parts.values()] + list(grids.values())
    keys = _keys(document, free=frozenset({"set", "gpu", "gpu_and_kind", "grids"})) | _keys(inside, free=FREE)

    assert len(inside) > 20
    assert document["refused"]
    assert keys <= _document("accuracy"), keys - _document("accuracy")


def test_the_other_documents(tmp_path: Path) -> None:
    """Each key that a verb writes is explained in the paragraph of its document."""
    path = tmp_path / "q.plan"
    path.write_bytes(_planned().content)
    predicted = exactmap.simulate(path, out=tmp_path / "predicted", pictures=False)
    text = tmp_path / "texts"
    text.mkdir()
    for number in range(4):
        (text / f"{number}.txt").write_text(f"{number} " * 500, encoding="ascii")
    rows = tmp_path / "rows.csv"
    rows.write_text("gpu,n_gpus,hidden,layers,heads,seq_len,gbs\nH100,8,1024,4,16,1024,8\n", encoding="ascii")
    documents = [
        predicted.to_dict(),
        exactmap.check(path).to_dict(),
        exactmap.map(path, ["cluster.num_gpus=16", "map.exclude=[gpu 3]"], cluster="h100-8").to_dict(),
        exactmap.show(path, rank=0).to_dict(),
        exactmap.show(tmp_path / "predicted" / "trace.tsv").to_dict(),
        exactmap.compare(tmp_path / "predicted", tmp_path / "predicted").to_dict(),
        exactmap.data([text], tmp_path / "tokens", val_fraction=0.25).to_dict(),
        exactmap.doctor().to_dict(),
        exactmap.predict(rows).to_dict(),
        exactmap.cluster("gb300-nvl72", num_gpus=720).to_dict(),
        exactmap.catalog("gb300-nvl72").to_dict(),
        exactmap.simulate_whole(path, cluster="h100-8", most_healed=1).to_dict(),
        exactmap.explain("published", id="megatron_bridge_26.06-0231").to_dict(),
        exactmap.export(path, "megatron", tmp_path / "handed").to_dict(),
        exactmap.traffic("h100-8", gpus=1024, size="1 MB", slow=["leaf 3 > spine 1=0.5"]).to_dict(),
    ]
    free = FREE | {"ranks"}
    for document in documents:
        kind = str(document["kind"])
        keys = _keys(document, free=free if kind.startswith("show") else FREE)

        assert next(iter(document)) == "schema_version"
        assert keys <= _document(kind), keys - _document(kind)


def test_collective_document() -> None:
    document = exactmap.collective("all_reduce", cluster="h100-8", gpus=64, ranks=16, size="1MiB").to_dict()
    keys = _keys(document, free=frozenset({"tier_ns"}))

    assert keys <= _document("collective"), keys - _document("collective")


def test_run_and_sample_documents() -> None:
    """Their keys are read off the code: they need a run."""
    for name, kind in (("run", "run"), ("sample", "sample")):
        source = (ROOT / "sim" / "verbs" / f"{name}.py").read_text(encoding="utf-8")
        body = source[source.index("def to_dict") :].split("}", 1)[0]
        keys = set(re.findall(r'"([a-z_]+)":', body))

        assert len(keys) > 4
        assert keys <= _document(kind), keys - _document(kind)


def test_hardware_profile_document() -> None:
    models: list[type[BaseModel]] = [
        HostProfile,
        HostFacts,
        PassSample,
        ElementsTime,
        BytesTime,
        HandOver,
        AllReduceTime,
    ]
    keys = {name for model in models for name in model.model_fields}

    assert keys <= _document("hardware-profile"), keys - _document("hardware-profile")
