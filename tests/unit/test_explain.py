"""A step taken apart: parts add up, what is free never slows it, a notch is the same job cut otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import exactmap
from exactmap.errors import ExactmapError, InfeasibleError, InvalidInputError
from exactmap.sim.cost.layers import LayerClock
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.published.accuracy import published_and_b200
from exactmap.sim.published.row import Row
from exactmap.sim.published.setup_of import setup_of
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.step.communication import AxisTime, communication
from exactmap.sim.step.ideal import Resource
from exactmap.sim.step.notch_prices import memory_limit_bytes, price_notches
from exactmap.sim.step.notches import Notch, notches
from exactmap.sim.step.operators import OperatorTime, operator_times
from exactmap.sim.step.parts import PartGroup, grouped_ns
from exactmap.sim.step.predict import predict_step
from exactmap.sim.step.rank_work import model_flop_per_gpu, rank_work
from exactmap.sim.step.regroup import regrouped
from exactmap.sim.step.stages import price_stages
from exactmap.sim.step.what_if import free_resources
from exactmap.sim.workload.model import Experts, ModelConfig, ModelKind
from exactmap.sim.workload.operators import Pass, model_flop
from exactmap.sim.workload.training import Batch, Recompute, Software, Split

_MODEL = ModelConfig(
    ModelKind.LLAMA,
    layers=16,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    ffn=14336,
    vocab=128_256,
    positions=8192,
    tied=False,
)
_ROWS = tuple(published_and_b200())
_SOME_ID = "dgxc_nemo_h100-0624"


def _setup(split: Split, m: int = 8, **changes: object) -> TrainingSetup:
    cluster = replace(load_cluster("h100-8"), num_gpus=max(8, split.num_ranks))
    return replace(TrainingSetup(_MODEL, split, Batch(8192, 1, m), cluster), **changes)  # type: ignore[arg-type]


def _priced_rows(step: int) -> Iterator[TrainingSetup]:
    for row in _ROWS[::step]:
        try:
            setup = setup_of(row)
            predict_step(setup)
        except ExactmapError:
            continue
        yield setup


def _operators(setup: TrainingSetup) -> tuple[OperatorTime, ...]:
    prediction = predict_step(setup)
    stages = price_stages(LayerClock(setup))
    return operator_times(setup, rank_work(setup, stages, prediction.busiest), prediction)


def _axes(setup: TrainingSetup) -> dict[str, AxisTime]:
    prediction = predict_step(setup)
    stages = price_stages(LayerClock(setup))
    work = rank_work(setup, stages, prediction.busiest)
    return {each.axis: each for each in communication(setup, stages, work, prediction)}


def _named(setup: TrainingSetup) -> dict[tuple[str, str], Notch]:
    return {(notch.knob, notch.new): notch for notch in notches(setup)}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(_ROWS))
def test_any_published_run_comes_apart_and_adds_up(row: Row) -> None:
    """Parts sum to the step, operators to its compute, a free resource never slows it."""
    try:
        setup = setup_of(row)
        prediction = predict_step(setup)
    except ExactmapError:
        return
    assert sum(prediction.parts_ns.values()) == pytest.approx(prediction.step_ns)
    stages = price_stages(LayerClock(setup))
    work = rank_work(setup, stages, prediction.busiest)
    operators = operator_times(setup, work, prediction)
    compute = grouped_ns(prediction.parts_ns)[PartGroup.COMPUTE]
    assert sum(each.total_ns for each in operators) == pytest.approx(compute)
    assert all(each.total_ns > 0 for each in operators)
    for each in operators:
        if each.pass_ns:
            assert prediction.parts_ns[each.name] == pytest.approx(sum(each.pass_ns.values()))
    for axis in communication(setup, stages, work, prediction):
        assert 0.0 <= axis.hidden_ns <= axis.total_ns
        assert axis.exposed_ns + axis.again_ns <= axis.total_ns * (1 + 1e-9)
    freed = free_resources(setup, prediction)
    assert {each.resource for each in freed} == set(Resource)
    assert all(0.0 < each.step_ns <= prediction.step_ns * (1 + 1e-9) for each in freed)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(_ROWS))
def test_every_notch_of_a_published_run_is_the_same_job(row: Row) -> None:
    """The same GPUs, model and batch; a notch back from there is where it came from, or cannot be had."""
    try:
        setup = setup_of(row)
    except ExactmapError:
        return
    prediction = predict_step(setup)
    sequences = setup.batch.microbatch * setup.batch.num_microbatches * setup.split.dp
    priced, refused = price_notches(setup, prediction, memory_limit_bytes(setup))
    assert all(each.why for each in refused)
    assert [each.change for each in priced] == sorted(each.change for each in priced)
    for each in priced:
        other = each.notch.setup
        assert other is not None
        assert other != setup
        assert other.split.num_ranks == setup.split.num_ranks
        assert other.batch.microbatch * other.batch.num_microbatches * other.split.dp == sequences
        assert other.batch.seq == setup.batch.seq
        assert other.model is setup.model
        assert each.step_ns == predict_step(other).step_ns
        assert each.fits == (each.memory_bytes <= memory_limit_bytes(setup))


def test_operators_say_what_they_do_and_what_bounds_them() -> None:
    found = {each.name: each for each in _operators(_setup(Split(tp=1, dp=8)))}
    tokens = 8 * 8192
    assert found["up"].flop == pytest.approx(3 * 16 * 2.0 * tokens * 4096 * 2 * 14336)
    assert set(found["up"].pass_ns) == set(Pass)
    assert found["up"].bound == "arithmetic"
    assert 0.4 < found["up"].share_of_peak < 1.0
    assert found["norm1"].bound == "memory"
    assert found["norm1"].flop == 0.0
    rate = found["norm1"].num_bytes * 1e9 / found["norm1"].total_ns
    assert rate < load_cluster("h100-8").gpu.memory_bytes_per_s


def test_tiny_kernels_are_bound_by_their_launches() -> None:
    tiny = replace(_MODEL, layers=2, hidden=256, heads=4, kv_heads=4, head_dim=64, ffn=512)
    setup = _setup(Split(dp=8), model=tiny, batch=Batch(128, 1, 1))
    assert {each.name: each.bound for each in _operators(setup)}["norm1"] == "launch"


def test_what_is_computed_again_belongs_to_its_operator() -> None:
    """Full recompute repeats each forward once; the head is not repeated; exchanges are named apart."""
    split = Split(tp=8, dp=1, sequence_parallel=True)
    plain = {each.name: each for each in _operators(_setup(split))}
    full = {each.name: each for each in _operators(_setup(split, recompute=Recompute("full")))}
    assert full["up"].again_ns == pytest.approx(full["up"].pass_ns[Pass.F])
    assert full["up"].flop == pytest.approx(plain["up"].flop * 4 / 3)
    assert full["head"].again_ns == 0.0
    assert "exchanges again" not in plain
    tensor = _axes(_setup(split, recompute=Recompute("full")))["tp"]
    assert full["exchanges again"].total_ns == pytest.approx(tensor.again_ns)


def test_model_flops_do_not_depend_on_the_cut_or_on_recompute() -> None:
    one = _setup(Split(dp=8))
    cut = _setup(Split(tp=2, pp=4, dp=1), m=64, recompute=Recompute("full"))
    per_gpu = [model_flop_per_gpu(each, price_stages(LayerClock(each))) for each in (one, cut)]
    assert per_gpu[0] == pytest.approx(per_gpu[1], rel=0.01)
    assert per_gpu[0] * 8 == pytest.approx(model_flop(_MODEL, 8192, 64), rel=0.01)


def test_hidden_communication_is_named() -> None:
    """Overlap moves time of the gradients from exposed to hidden; their bytes stay."""
    split = Split(tp=2, dp=32, zero=1, sequence_parallel=True)
    plain = _axes(_setup(split))
    beside = _axes(_setup(split, software=Software(overlap_grad=True, overlap_param=True)))
    assert plain["dp"].hidden_ns == pytest.approx(0.0, abs=1.0)
    assert beside["dp"].hidden_ns > 0.5 * beside["dp"].total_ns
    assert beside["dp"].total_ns == pytest.approx(plain["dp"].total_ns)
    assert beside["dp"].num_bytes == plain["dp"].num_bytes
    assert beside["dp"].tier == "scale_out"
    assert plain["tp"].tier == "scale_up"
    assert plain["tp"].bytes_per_s < 450e9


def test_sharded_parameters_are_mostly_hidden() -> None:
    setup = _setup(Split(dp=16, zero=3), batch=Batch(8192, 2, 1))
    data = _axes(setup)["dp"]
    assert data.hidden_ns > data.exposed_ns > 0


def test_a_network_that_is_free_takes_its_exchanges_away() -> None:
    setup = _setup(Split(tp=8, pp=2, dp=4, sequence_parallel=True), m=8)
    prediction = predict_step(setup)
    steps = {each.resource: each.step_ns for each in free_resources(setup, prediction)}
    tensor = prediction.parts_ns["tp scale_up"]
    assert prediction.step_ns - steps[Resource.SCALE_UP] > tensor * 0.9
    assert steps[Resource.SCALE_OUT] < prediction.step_ns
    assert steps[Resource.BUBBLE] < prediction.step_ns - prediction.parts_ns["bubble"]
    ideal = replace(setup.cluster, ideal=frozenset({"scale_up"}))
    assert "tp scale_up" not in predict_step(replace(setup, cluster=ideal)).parts_ns


def test_a_large_dense_model_is_bound_by_arithmetic_and_a_bad_cut_by_the_network() -> None:
    good = _setup(Split(tp=1, dp=8))
    bad = _setup(Split(tp=32, dp=1), m=8)
    bounds = [free_resources(each, predict_step(each))[0].resource for each in (good, bad)]
    assert bounds == [Resource.ARITHMETIC, Resource.SCALE_OUT]


def test_free_arithmetic_leaves_the_bytes_and_free_memory_the_arithmetic() -> None:
    setup = _setup(Split(tp=1, dp=1))
    prediction = predict_step(setup)
    steps = {each.resource: each.step_ns for each in free_resources(setup, prediction)}
    assert 0 < steps[Resource.ARITHMETIC] < steps[Resource.MEMORY] < prediction.step_ns


def test_degrees_trade_with_data_parallelism() -> None:
    setup = _setup(Split(tp=4, pp=2, dp=4, sequence_parallel=True), m=8)
    found = _named(setup)
    doubled, halved = found["tp", "8"].setup, found["tp", "2"].setup
    assert doubled is not None
    assert halved is not None
    assert (doubled.split.dp, doubled.batch.num_microbatches) == (2, 16)
    assert (halved.split.dp, halved.batch.num_microbatches) == (8, 4)
    assert found["microbatch", "2"].setup == replace(setup, batch=Batch(8192, 2, 4))


def test_tensor_parallelism_brings_and_takes_sequence_parallelism() -> None:
    first = _named(_setup(Split(dp=8)))["tp", "2"].setup
    last = _named(_setup(Split(tp=2, dp=4, sequence_parallel=True)))["tp", "1"].setup
    assert first is not None
    assert last is not None
    assert first.split.sequence_parallel
    assert not last.split.sequence_parallel


def test_a_pipeline_that_goes_takes_its_chunks_with_it() -> None:
    setup = _setup(Split(pp=2, dp=4, chunks=4), schedule="interleaved-1F1B")
    found = _named(setup)
    none, single = found["pp", "1"].setup, found["vpp", "2"].setup
    assert none is not None
    assert single is not None
    assert (none.split.chunks, none.schedule) == (1, "none")
    assert (single.split.chunks, single.schedule) == (2, "interleaved-1F1B")
    assert found["vpp", "8"].setup is not None
    assert _named(replace(setup, split=replace(setup.split, chunks=8)))["vpp", "16"].why == (
        "32 stages for 16 layers"
    )


def test_embedding_and_head_may_have_stages_of_their_own() -> None:
    """126 layers on 128 stages, as Llama 3 405B ran; its other knobs can be moved."""
    setup = _setup(
        Split(pp=16, chunks=8, dp=2),
        m=32,
        model=replace(_MODEL, layers=126),
        schedule="interleaved-1F1B",
    )
    assert _named(setup)["tp", "2"].setup is not None
    assert _named(setup)["pp", "32"].why == "256 stages for 126 layers"


@pytest.mark.parametrize(
    ("split", "m", "notch", "why"),
    [
        (Split(dp=1, tp=8), 8, ("tp", "16"), "tp x cp x pp = 16 does not divide 8 GPUs"),
        (Split(dp=8), 1, ("microbatch", "2"), "dp 8 x microbatch 2 does not divide the batch of 8 sequences"),
        (Split(dp=8), 8, ("ep", "other"), "the model has no experts"),
        (Split(dp=8), 8, ("vpp", "other"), "there is no pipeline"),
        (Split(dp=8), 8, ("sequence parallel", "on"), "there is no tensor parallelism"),
        (Split(dp=1, tp=8), 8, ("ZeRO", "1"), "one data rank has nothing to share"),
        (Split(dp=8, zero=3), 8, ("overlap gradients", "on"), "ZeRO 3 always overlaps"),
        (Split(dp=8), 8, ("precision", "fp4"), ""),
        (Split(pp=4, dp=2), 6, ("vpp", "2"), "interleaving needs a multiple of 4 microbatches, not 6"),
    ],
)
def test_a_notch_that_cannot_be_had_says_why(split: Split, m: int, notch: tuple[str, str], why: str) -> None:
    found = _named(_setup(split, m))
    if not why:
        assert notch not in found
        return
    assert found[notch].setup is None
    assert found[notch].why == why


def test_narrow_arithmetic_is_offered_where_the_gpu_has_it() -> None:
    hopper = _named(_setup(Split(dp=8)))
    ampere = _named(_setup(Split(dp=8), cluster=load_cluster("a100-8")))
    assert hopper["precision", "fp8"].setup is not None
    assert "A100-80G has no fp8" in ampere["precision", "fp8"].why.replace("A100 ", "A100-80G ")


def test_experts_cannot_be_spread_over_more_ranks_than_there_are() -> None:
    experts = replace(_MODEL, experts=Experts(8, 2, 14336))
    found = _named(_setup(Split(dp=8, ep=8), model=experts))
    assert found["ep", "4"].setup is not None
    assert "ep" in found["ep", "16"].why


def test_a_cut_that_divides_nothing_is_refused() -> None:
    with pytest.raises(InfeasibleError, match="tp 64 does not divide 32 heads"):
        regrouped(_setup(Split(dp=64)), tp=64)


def test_the_verb_reads_published_rows_by_id_and_by_number() -> None:
    by_id = exactmap.explain("published", id=_SOME_ID)
    number = next(at for at, row in enumerate(_ROWS, start=1) if row["id"] == _SOME_ID)
    by_number = exactmap.explain("published", row=number)
    assert by_id.to_dict() == by_number.to_dict()
    assert by_id.subject.measured_ns == pytest.approx(8.7e9)
    assert 0.1 < by_id.utilisation < 0.6
    assert sum(by_id.pass_ns.values()) == pytest.approx(
        grouped_ns(by_id.prediction.parts_ns)[PartGroup.COMPUTE]
    )


def test_a_table_of_one_row_needs_no_choice(tmp_path: Path) -> None:
    """And what was measured changes nothing but the line that says so."""
    row = next(row for row in _ROWS if row["id"] == _SOME_ID)
    path = tmp_path / "mine.csv"
    kept = {name: value for name, value in row.values.items() if "," not in (value or "")}
    kept["step_time_s"] = ""
    path.write_text(",".join(kept) + "\n" + ",".join(kept.values()) + "\n", encoding="utf-8")
    mine = exactmap.explain(path).to_dict()
    theirs = exactmap.explain("published", id=_SOME_ID).to_dict()
    assert mine.pop("measured_ns") is None
    assert theirs.pop("measured_ns") is not None
    assert {**mine, "source": ""} == {**theirs, "source": ""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "which row"),
        ({"id": "dgxc_nemo_h100-624"}, "did you mean 'dgxc_nemo_h100-0624'"),
        ({"row": 0}, "there is no such row"),
        ({"id": _SOME_ID, "row": 3}, "by id or by number"),
        ({"id": _SOME_ID, "overrides": ["a.b=1"]}, "only fields of a scenario"),
    ],
)
def test_a_row_that_is_not_there_is_an_error(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        exactmap.explain("published", **arguments)  # type: ignore[arg-type]


def test_a_row_without_a_price_says_why(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "id,model,layers,hidden,heads,seq_len,gpu,n_gpus,gbs\nmine,m,8,1024,8,2048,K80,8,64\n",
        encoding="utf-8",
    )
    with pytest.raises(InvalidInputError, match="mine is refused") as caught:
        exactmap.explain(path)
    assert "rows.csv:2" in str(caught.value)
    assert "no such GPU is known: got K80" in str(caught.value)


def test_the_plan_of_a_scenario_is_explained() -> None:
    scenario = Path(__file__).parents[2] / "scenarios" / "h100-1024.yaml"
    fixed = ["tp=8", "pp=8", "chunks=3", "microbatch=1", "schedule=interleaved-1f1b"]
    report = exactmap.explain(scenario, [f"parallel.{text}" for text in fixed])
    layout = report.to_dict()["layout"]
    assert isinstance(layout, dict)
    assert {name: layout[name] for name in ("tp", "pp", "vpp", "dp")} == {
        "tp": 8,
        "pp": 8,
        "vpp": 3,
        "dp": 16,
    }
    assert 0.2 < report.utilisation < 0.7
    with pytest.raises(InvalidInputError, match="no rows to choose from"):
        exactmap.explain(scenario, id="x")
    with pytest.raises(InvalidInputError, match="runs on the cores of a host"):
        exactmap.explain(scenario.with_name("cpu-quick.yaml"))
