"""The verbs as Python functions: what they return, write and refuse. Their printed form: tests/cli."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

import exactmap
from exactmap.errors import (
    CheckFailedError,
    ExactmapError,
    ExecutionFailedError,
    InfeasibleError,
    InvalidInputError,
)
from exactmap.sim.cost.host import (
    AllReduceTime,
    BytesTime,
    ElementsTime,
    HandOver,
    HostFacts,
    HostProfile,
    PassSample,
)
from exactmap.sim.cost.price_host import price_on_host
from exactmap.sim.plan.check import load_plan
from exactmap.sim.planner.host_pricing import MEASURED_BAND
from exactmap.sim.report.result import read_result
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.sim.verbs.input_kind import InputKind, input_kind, refuse_others
from exactmap.sim.verbs.plan import space_of

ROOT = Path(__file__).parents[2]
QUICK = ROOT / "scenarios" / "cpu-quick.yaml"
VALID = ROOT / "tests" / "golden" / "plans" / "valid"


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan and two predictions of it."""
    folder = tmp_path_factory.mktemp("verbs")
    exactmap.plan(QUICK, out=folder / "q.plan")
    exactmap.simulate(folder / "q.plan", out=folder / "a", pictures=False)
    exactmap.simulate(folder / "q.plan", out=folder / "b", mover="inline", pictures=False)
    return folder


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up measurement of the model byte-tiny: every pass takes a round time."""
    model = load_scenario(QUICK).model
    times = {"F": 100_000, "I": 120_000, "W": 80_000, "B": 190_000}
    profile = HostProfile(
        host=HostFacts(cpu="made up", num_cores=2, blas="none", engine="none"),
        ranks_at_once=2,
        passes=tuple(
            PassSample(
                part=part,
                step=step,
                kind="llama",
                hidden=model.hidden,
                heads=model.heads,
                kv_heads=model.kv_heads,
                head_dim=model.head_dim,
                ffn=model.ffn,
                vocab=model.vocab,
                seq=64,
                microbatch=microbatch,
                ns=times[step] * microbatch if part == "layer" else 1000 * microbatch,
            )
            for part in ("layer", "embedding", "head")
            for step in ("F", "I", "W", "B")
            for microbatch in (1, 2)
        ),
        optimizer=(ElementsTime(elements=1000, ns=500),),
        copies=(BytesTime(bytes=1000, ns=100),),
        awake=HandOver(post_ns=100, wake_ns=200),
        asleep=HandOver(post_ns=1000, wake_ns=2000),
        all_reduce=(AllReduceTime(ranks=2, bytes=1000, ns=300),),
        instruction_ns=50,
    )
    path = tmp_path_factory.mktemp("host") / "h.json"
    path.write_text(profile.to_json(), encoding="utf-8")
    return path


def test_plan_writes_what_it_returns(tmp_path: Path) -> None:
    """The file, its hash, and the plan of the outcome are one and the same; the file is accepted."""
    told: list[float] = []
    outcome = exactmap.plan(
        QUICK,
        ["training.steps=7"],
        out=tmp_path / "x" / "q.plan",
        progress=lambda share, _: told.append(share),
    )
    content = (tmp_path / "x" / "q.plan").read_bytes()
    read, read_sha256 = load_plan(tmp_path / "x" / "q.plan")

    assert content == outcome.content
    assert read_sha256 == outcome.sha256 == sha256(content).hexdigest()
    assert read == outcome.plan
    assert read.train.steps == 7
    assert told[-1] == 1.0


def test_plan_twice_is_equal_bytes() -> None:
    assert exactmap.plan(QUICK).content == exactmap.plan(QUICK).content


def test_an_error_leaves_the_old_plan(tmp_path: Path) -> None:
    path = tmp_path / "q.plan"
    path.write_text("old", encoding="ascii")
    with pytest.raises(InfeasibleError, match="no candidate fits"):
        exactmap.plan(QUICK, ["parallel.chunks=[1, 4]", "parallel.schedule=interleaved-1f1b"], out=path)

    assert path.read_text(encoding="ascii") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_plan_for_a_measured_host(host: Path, tmp_path: Path) -> None:
    """Prices come from the measurement: the plan's prediction is the one that the measurement gives it."""
    outcome = exactmap.plan(QUICK, out=tmp_path / "q.plan", host=host)
    again = exactmap.simulate(tmp_path / "q.plan", host=host)
    by_lines = exactmap.simulate(tmp_path / "q.plan")

    assert outcome.ranking.winner.step_ns == again.result.step_time_ns == by_lines.result.step_time_ns
    assert again.result.band == by_lines.result.band == MEASURED_BAND
    assert "made_up" in dict(outcome.plan.made)["priced_with"]
    assert (
        outcome.ranking.winner.profile.work_ns
        == price_on_host(outcome.plan, HostProfile.model_validate_json(host.read_bytes())).work_ns
    )


def test_a_measured_host_prices_no_cluster(host: Path) -> None:
    with pytest.raises(InvalidInputError, match="prices plans of this host alone"):
        exactmap.plan(ROOT / "scenarios" / "h100-1024.yaml", host=host)


def test_automatic_choices_fit_model_and_machine() -> None:
    """`auto` offers divisors of the model that the machine has room for."""
    scenario = load_scenario(ROOT / "scenarios" / "h100-1024.yaml")
    auto = replace(scenario.parallel, tp=None, pp=None, microbatch=None, chunks=None, schedule=None)
    space = space_of(replace(scenario, parallel=auto))

    assert all(scenario.model.heads % tp == 0 and tp <= 8 for tp in space.tp)
    assert all(scenario.model.layers % pp == 0 for pp in space.pp)
    assert space.microbatch == (1, 2, 4, 8, 16)
    assert set(space.schedules) == {"gpipe", "1f1b", "interleaved-1f1b", "zb-h1", "1f1b-recompute"}
    assert space.zero == (0, 1)


def test_both_engines_predict_the_same(ready: Path) -> None:
    replay = exactmap.simulate(ready / "q.plan", engine="replay")
    events = exactmap.simulate(ready / "q.plan", engine="events")

    assert replay.trace.same_times(events.trace)
    assert replace(replay.result, source="") == replace(events.result, source="")


def test_a_prediction_repeats_the_search(ready: Path) -> None:
    """`simulate` of the file gives what `plan` promised, to the nanosecond."""
    plan, plan_sha256 = load_plan(ready / "q.plan")
    result = exactmap.simulate(ready / "q.plan").result

    assert dict(plan.pred)["step_ns"] == str(result.step_time_ns)
    assert result.plan_sha256 == plan_sha256


def test_a_scenario_is_planned_first(ready: Path) -> None:
    assert (
        exactmap.simulate(QUICK).result.step_time_ns
        == exactmap.simulate(ready / "q.plan").result.step_time_ns
    )


def test_written_prediction_is_the_returned_one(ready: Path, tmp_path: Path) -> None:
    made = exactmap.simulate(ready / "q.plan", out=tmp_path)

    assert read_result(tmp_path / "prediction.json") == made.result
    assert {path.name for path in made.files} == {path.name for path in tmp_path.iterdir()}
    assert {"timeline.png", "memory.png", "trace.json", "trace.tsv"} < {path.name for path in made.files}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("peak_flop_per_s=110000000000", "peak_flop_per_s=much"),
        ("peak_flop_per_s=110000000000", "band=nan,inf"),
    ],
)
def test_information_lines_bind_nobody(ready: Path, tmp_path: Path, line: str, value: str) -> None:
    """Whatever stands in `made`, a plan can be simulated."""
    first, second, body = (ready / "q.plan").read_text(encoding="ascii").split("\n", 2)
    body = body.replace(line, value)
    text = f"{first}\n{second.split('=')[0]}={sha256(body.encode()).hexdigest()}\n{body}"
    (tmp_path / "odd.plan").write_text(text, encoding="ascii")
    result = exactmap.simulate(tmp_path / "odd.plan").result

    assert value in text
    assert (result.peak_flop_per_s, result.band) == (0.0, None)


def test_unknown_words(ready: Path) -> None:
    with pytest.raises(InvalidInputError, match="unknown engine"):
        exactmap.simulate(ready / "q.plan", engine="real")
    with pytest.raises(InvalidInputError, match="unknown mover"):
        exactmap.simulate(ready / "q.plan", mover="horse")


def test_profile_instead_of_cost_lines(ready: Path, tmp_path: Path) -> None:
    from exactmap.sim.cost.cost_lines import profile_from_cost_lines

    plan, _ = load_plan(ready / "q.plan")
    path = tmp_path / "profile.json"
    path.write_text(profile_from_cost_lines(plan.cost).to_json(), encoding="utf-8")
    made = exactmap.simulate(ready / "q.plan", profile=path)

    assert made.result.step_time_ns == exactmap.simulate(ready / "q.plan").result.step_time_ns
    assert made.result.basis == f"profile {path}"
    assert made.result.band is None


def test_compare_writes_both_lanes(ready: Path, tmp_path: Path) -> None:
    report = exactmap.compare(ready / "a", ready / "b" / "prediction.json", out=tmp_path / "c")
    document = json.loads((tmp_path / "c" / "comparison.json").read_text(encoding="utf-8"))

    assert report.comparison.same_plan
    assert document == report.to_dict()
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "comparison.json",
        "comparison.png",
        "comparison.trace.json",
    ]


def test_compare_without_traces(ready: Path, tmp_path: Path) -> None:
    """A document alone can be compared; there is just no picture."""
    alone = tmp_path / "alone.json"
    alone.write_bytes((ready / "a" / "prediction.json").read_bytes())
    report = exactmap.compare(alone, ready / "b", out=tmp_path / "c")

    assert [path.name for path in report.files] == ["comparison.json"]


def test_compare_fails_over_its_bound(ready: Path, tmp_path: Path) -> None:
    """Above the bound an error, after everything was written; below it none."""
    exactmap.compare(ready / "a", ready / "b", fail_over=0.5)
    with pytest.raises(CheckFailedError, match="the step times differ too much"):
        exactmap.compare(ready / "a", ready / "b", out=tmp_path, fail_over=0.0)

    assert (tmp_path / "comparison.json").is_file()
    exactmap.compare(ready / "a", ready / "a", fail_over=0.0)


@pytest.mark.parametrize("bound", [-0.1, float("nan"), float("inf")])
def test_a_bound_is_a_share(ready: Path, bound: float) -> None:
    with pytest.raises(InvalidInputError, match="the bound of the difference is no share"):
        exactmap.compare(ready / "a", ready / "b", fail_over=bound)


def test_check_of_every_scenario() -> None:
    for path in sorted((ROOT / "scenarios").glob("*.yaml")):
        report = exactmap.check(path)

        assert report.kind == "scenario"
        assert report.sha256 == sha256(path.read_bytes()).hexdigest()
        assert report.config is None


def test_check_writes_defaults_out(tmp_path: Path) -> None:
    """The written-out scenario reads back to itself."""
    config = exactmap.check(QUICK, ["training.steps=9"], effective=True).config
    assert config is not None
    (tmp_path / "full.yaml").write_text(config, encoding="utf-8")

    assert "steps: 9" in config
    assert exactmap.check(tmp_path / "full.yaml", effective=True).config == config
    with pytest.raises(InvalidInputError, match="no defaults to write out"):
        exactmap.check(VALID / "gpipe.plan", effective=True)


def test_check_of_every_plan() -> None:
    for path in sorted(VALID.glob("*.plan")):
        report = exactmap.check(path)

        assert (report.kind, report.sha256) == ("plan", sha256(path.read_bytes()).hexdigest())


def test_show_of_every_plan() -> None:
    """Every valid plan can be looked at, each of its programs printed."""
    for path in sorted(VALID.glob("*.plan")):
        plan, _ = load_plan(path)
        for rank in range(plan.mesh.pp):
            shown = exactmap.show(path, rank=rank)

            assert shown.program[-1] == "END"
            assert len(shown.ranks) == plan.mesh.pp


def test_show_names_what_it_found(ready: Path) -> None:
    assert [
        exactmap.show(ready / name).kind for name in ("q.plan", "a", "a/prediction.json", "a/trace.tsv")
    ] == [
        "plan",
        "prediction",
        "prediction",
        "trace",
    ]


def test_kinds_are_told_by_first_bytes(ready: Path) -> None:
    assert input_kind(ready / "q.plan") is InputKind.PLAN
    assert input_kind(ready / "a" / "trace.tsv") is InputKind.TRACE
    assert input_kind(ready / "a" / "prediction.json") is InputKind.DOCUMENT
    assert input_kind(QUICK) is InputKind.SCENARIO
    assert input_kind(ROOT / "Makefile") is InputKind.OTHER


def test_what_is_not_known_is_left_to_its_reader() -> None:
    assert refuse_others(ROOT / "Makefile", "a plan", InputKind.PLAN) is InputKind.OTHER
    with pytest.raises(InvalidInputError, match="this is a scenario: expected a plan"):
        refuse_others(QUICK, "a plan", InputKind.PLAN)


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff" * 300, b"exactmap-plan 1.0\n", b"{}", b"[1]", b"# exactmap-trace"]
)
@pytest.mark.parametrize("name", ["x.plan", "x.yaml", "x.json", "x"])
def test_no_input_crashes_a_verb(tmp_path: Path, name: str, content: bytes) -> None:
    """Each verb refuses each wrong file as invalid input that names the file."""
    path = tmp_path / name
    path.write_bytes(content)
    for verb in (exactmap.plan, exactmap.simulate, exactmap.check, exactmap.show, exactmap.run):
        with pytest.raises(ExactmapError) as caught:
            verb(path)

        assert caught.value.exit_code == 3
        assert str(path) in str(caught.value)


def test_a_file_in_the_way_of_a_folder(ready: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for call in (
        lambda: exactmap.simulate(ready / "q.plan", out=tmp_path / "file"),
        lambda: exactmap.compare(ready / "a", ready / "b", out=tmp_path / "file" / "deeper"),
        lambda: exactmap.run(ready / "q.plan", out=tmp_path / "file"),
    ):
        with pytest.raises(ExecutionFailedError, match="cannot make the output folder"):
            call()


def test_doctor_finds_the_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing engine, or one that cannot start, is a problem with its remedy."""
    monkeypatch.setenv("EXACTMAP_RUNNER", str(tmp_path / "none"))
    report = exactmap.doctor()
    problems = {found.name: found.problem for found in report.findings if found.problem}

    assert not report.ok
    assert "unset EXACTMAP_RUNNER" in problems["C engine"]


def test_doctor_is_told_by_the_engine_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "engine"
    fake.write_text("#!/bin/sh\necho broken >&2\nexit 3\n", encoding="ascii")
    fake.chmod(0o755)
    monkeypatch.setenv("EXACTMAP_RUNNER", str(fake))
    problems = {found.name: found.problem for found in exactmap.doctor().findings}

    assert problems["C engine"] == "exits with 3: broken"


def test_sample_refuses_numbers_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="top_k: out of range: got -1"):
        exactmap.sample(tmp_path, top_k=-1)
    with pytest.raises(InvalidInputError, match="temperature: out of range: got nan"):
        exactmap.sample(tmp_path, temperature=float("nan"))


def test_the_package_offers_the_verbs() -> None:
    assert callable(exactmap.calibrate)
    with pytest.raises(AttributeError, match="has no attribute 'pla'"):
        exactmap.pla  # type: ignore[attr-defined]  # noqa: B018
