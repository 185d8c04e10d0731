"""Handing a plan over: nothing that it says is dropped, and only names that the targets have are used."""

from __future__ import annotations

import json
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from exactmap.sim.handover.facts import plan_facts
from exactmap.sim.handover.handover import Handover, Job, LaidRanks
from exactmap.sim.handover.megatron_layout import write_layout
from exactmap.sim.handover.megatron_order import group_sizes, megatron_order
from exactmap.sim.handover.report import cannot_page
from exactmap.sim.handover.sources import source_of
from exactmap.sim.handover.targets import TARGETS
from exactmap.sim.handover.torchtitan_model import derived_ffn
from exactmap.sim.handover.verdict import Grade, Ledger
from exactmap.sim.plan.plan import MapLine, MeshDims, Plan, PlanModel, PlanStage, Precision
from exactmap.sim.scenario.mapped_cluster import load_mapped_cluster
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.schedules.registry import SCHEDULES, make_order
from exactmap.sim.schedules.torch_csv.file import parse_torch_csv
from exactmap.sim.step.layout import read_layout
from exactmap.sim.workload.presets import find_preset
from exactmap.topology.exact_map.host_list import default_hosts
from exactmap.topology.exact_map.place import exact_map_of, machine_of
from exactmap.topology.mapping import Axis, Mesh

GOLDEN = Path(__file__).parents[1] / "golden" / "handover"
FRAMEWORKS = ("megatron", "torchtitan", "maxtext")


def _plan(schedule: str = "1f1b", **changes: object) -> Plan:
    """A plan of a small model on two pipeline ranks, or as `changes` say."""
    settings = {"pp": 2, "num_microbatches": 8, "seq": 64} | changes
    preset = str(settings.pop("preset", "byte-tiny"))
    return build_plan(find_preset(preset), schedule=schedule, **settings)  # type: ignore[arg-type]


@cache
def _of_schedule(name: str) -> Plan:
    schedule = SCHEDULES[name]
    changes: dict[str, object] = {}
    if schedule.many_chunks:
        changes["chunks"] = schedule.fixed_chunks or 2
    if schedule.slices:
        changes["slices"] = 2
    return _plan(name, **changes)


def _laid(plan: Plan, *overrides: str, cluster: str = "h100-8") -> LaidRanks:
    room = load_mapped_cluster(cluster, overrides)
    dims = plan.mesh
    mesh = Mesh(dims.tp, dims.cp, dims.ep, dims.pp, dims.dp, order=tuple(Axis(axis) for axis in dims.order))
    names = tuple(default_hosts(machine_of(room).num_hosts))
    return LaidRanks(exact_map_of(room, mesh), room.name, names)


def _handover(target: str, plan: Plan, laid: LaidRanks | None = None) -> Handover:
    return TARGETS[target].make(Job(plan, "small.plan", "0" * 64, laid))


def _how(found: Handover, fact: str) -> tuple[Grade, str]:
    line = next(line for line in found.verdict.lines if line.fact == fact)
    return line.grade, line.how


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_nothing_of_any_schedule_is_dropped(schedule: str, target: str) -> None:
    """Every fact of the plan has a line, none is unknown, and the page shows each."""
    plan = _of_schedule(schedule)
    laid = _laid(plan, "cluster.num_gpus=16") if TARGETS[target].needs_map else None
    job = Job(plan, "small.plan", "0" * 64, laid)
    found = TARGETS[target].make(job)
    page = cannot_page(job, found.verdict)

    assert set(plan_facts(plan, job.order)) <= {line.fact for line in found.verdict.lines}
    assert not [line for line in found.verdict.lines if "does not know" in line.how]
    assert all(f"| {line.fact} |" in page for line in found.verdict.lines)
    assert found.verdict.grade in {Grade.EXACT, Grade.APPROXIMATE, Grade.REFUSED}
    assert bool(found.files) == (found.verdict.grade is not Grade.REFUSED)
    assert set(found.emitted) <= source_of(target).names


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("preset", ["byte-tiny", "gpt2", "llama3-8b"])
def test_only_names_that_the_target_has(preset: str, target: str) -> None:
    """On meshes with and without a pipeline, sharded or not, in several data types."""
    low = Precision(param="bf16", grad="bf16", act="f8", comm="bf16", moment="bf16")
    for changes in (
        {"pp": 1},
        {"tp": 2, "dp": 2, "shard_params": True, "precision": low},
        {"pp": 2, "dp": 2, "cp": 2, "precision": replace(low, act="f4", grad="f32")},
        {"pp": 2, "chunks": 2, "group_size": 4},
    ):
        schedule = "interleaved-1f1b" if "chunks" in changes else "1f1b"
        plan = _plan(schedule, **({"preset": preset} | changes))
        laid = _laid(plan, "cluster.num_gpus=64") if TARGETS[target].needs_map else None
        found = _handover(target, plan, laid)

        assert set(found.emitted) <= source_of(target).names
        assert not [line for line in found.verdict.lines if "does not know" in line.how]


def test_every_source_says_where_it_was_read() -> None:
    for target in TARGETS:
        source = source_of(target)

        assert source.files
        assert source.version
        assert source.date


def test_a_field_that_a_plan_gets_later_is_not_dropped() -> None:
    """A fact that no target speaks of makes a line that says so, and no verdict above approximate."""
    ledger = Ledger({"mesh.tp": "2", "model.new": "7"})
    ledger.exact("said", "mesh.tp")
    verdict = ledger.verdict("megatron")

    assert [(line.fact, line.grade) for line in verdict.lines] == [
        ("mesh.tp", Grade.EXACT),
        ("model.new", Grade.APPROXIMATE),
    ]
    assert verdict.grade is Grade.APPROXIMATE


MEGATRONS = {"1f1b", "interleaved-1f1b", "1f1b-recompute", "1f1b-selective-recompute", "1f1b-offload"}
"""Schedules whose passes, recomputation and copies apart, are those that Megatron does."""

REFUSED = {"dualpipe": set(FRAMEWORKS), "chimera": set(FRAMEWORKS)}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_who_can_run_which_schedule(schedule: str) -> None:
    """Megatron runs two orders, torchtitan any with a stage on one rank, MaxText its own."""
    plan = _of_schedule(schedule)
    verdicts = {target: _handover(target, plan) for target in FRAMEWORKS}
    refused = {name for name, found in verdicts.items() if found.verdict.grade is Grade.REFUSED}
    order = {name: _how(found, "passes.order")[0] for name, found in verdicts.items() if name not in refused}

    assert refused == REFUSED.get(schedule, set())
    if not refused:
        assert (order["megatron"] is Grade.EXACT) == (schedule in MEGATRONS)
        assert (order["torchtitan"] is Grade.EXACT) == (plan.train.slices == 1)
        assert order["maxtext"] is Grade.APPROXIMATE


def test_plain_plan_is_exact_for_megatron() -> None:
    """1F1B without a warm-up of the learning rate: every line is exact or Megatron's own business."""
    plan = _plan()
    plan = replace(plan, train=replace(plan.train, warmup=0))

    assert _handover("megatron", plan).verdict.grade is Grade.EXACT


@pytest.mark.parametrize("name", ["zb-h1", "zb-v", "auto"])
def test_zero_bubble_is_1f1b_in_megatron(name: str) -> None:
    found = _handover("megatron", _of_schedule(name))

    assert _how(found, "passes.order")[0] is Grade.APPROXIMATE
    assert _how(found, "passes.split") == (
        Grade.APPROXIMATE,
        "both gradients at once (B): nothing fills the bubble",
    )


@pytest.mark.parametrize(
    "layers", [[2, 2, 2, 1], [1, 3, 3, 0], [4, 4, 4, 4], [1, 2, 2, 2, 2, 2, 2, 1], [0, 1, 0, 2], [7]]
)
def test_layout_reads_back(layers: list[int]) -> None:
    """What is written in Megatron's notation says the same stages to the reader of that notation."""
    firsts = np.cumsum([0, *layers[:-1]]).tolist()
    last = len(layers) - 1
    stages = [
        PlanStage(first if count else -1, first + count - 1 if count else -1, at == 0, at == last)
        for at, (first, count) in enumerate(zip(firsts, layers, strict=True))
    ]
    read = read_layout(write_layout(stages), sum(layers), len(layers))

    assert [stage.last - stage.first for stage in read] == layers
    assert [(stage.embedding, stage.head) for stage in read] == [
        (stage.embedding, stage.head) for stage in stages
    ]


def test_uneven_stages_become_a_layout() -> None:
    plan = _plan("1f1b", layers=[3, 1])
    found = _handover("megatron", plan)
    arguments = json.loads(found.files["arguments.json"])["arguments"]

    assert arguments["--pipeline-model-parallel-layout"] == "Et*3|tL"
    assert _how(found, "stages.layers")[0] is Grade.EXACT


def test_uneven_stages_become_even_in_maxtext() -> None:
    """Layers that do not divide evenly stay outside its pipeline, and the account says so."""
    even = _handover("maxtext", _plan("1f1b", layers=[3, 1]))
    left = _handover("maxtext", _plan("1f1b", preset="gpt2", pp=5, num_microbatches=10))

    assert _how(even, "stages.layers")[1].startswith("2 layers a stage")
    assert "2 layers outside" in _how(left, "stages.layers")[1]


def test_maxtext_takes_microbatches_that_divide() -> None:
    """The nearest number that is a multiple of the ranks and divides the batch; else a refusal."""
    near = _handover("maxtext", _plan(pp=4, num_microbatches=6, microbatch=2))
    none = _handover("maxtext", _plan(pp=4, num_microbatches=5))

    assert _how(near, "passes.order")[1].startswith("4 microbatches of 3 sequences")
    assert none.verdict.grade is Grade.REFUSED
    assert _how(none, "passes.order") == (
        Grade.REFUSED,
        "no multiple of 4 microbatches divides 5 sequences",
    )


@pytest.mark.parametrize(("p", "m", "v"), [(2, 8, 2), (4, 12, 3), (4, 8, 2), (3, 9, 2)])
def test_interleaved_order_is_megatrons(p: int, m: int, v: int) -> None:
    """Where the microbatches divide, the project's interleaved schedule is Megatron's, pass for pass."""
    mine, own = make_order("interleaved-1f1b", p, m, v), megatron_order(p, m, v, p)

    assert mine == own


def test_interleaved_with_a_rest_is_said_so() -> None:
    """10 microbatches on 4 ranks: groups of 5 and 5 here, which Megatron takes as an argument."""
    plan = _plan("interleaved-1f1b", preset="gpt2", pp=4, chunks=3, num_microbatches=10)
    found = _handover("megatron", plan)
    arguments = json.loads(found.files["arguments.json"])["arguments"]

    assert arguments["--microbatch-group-size-per-virtual-pipeline-stage"] == 5
    assert _how(found, "passes.order")[0] is Grade.EXACT
    assert group_sizes(4, 10) == [5, 6, 10]


def test_interleaved_needs_as_many_microbatches_as_ranks() -> None:
    plan = _plan("interleaved-1f1b", preset="gpt2", pp=4, chunks=3, num_microbatches=3)

    assert _handover("megatron", plan).verdict.grade is Grade.REFUSED


def test_order_of_axes_that_megatron_has_not() -> None:
    """A pipeline inside of tensor parallelism: ranks are numbered otherwise, and that is said."""
    orders = {
        ("tp", "cp", "ep", "dp", "pp"): (Grade.EXACT, "its order without an option"),
        ("tp", "cp", "ep", "pp", "dp"): (Grade.EXACT, "--use-tp-pp-dp-mapping"),
    }
    for order, expected in orders.items():
        assert _how(_handover("megatron", _plan(tp=2, dp=2, mesh_order=order)), "mesh.order") == expected
    odd = _plan(tp=2, dp=2, mesh_order=("pp", "tp", "cp", "ep", "dp"))
    for target in FRAMEWORKS:
        assert _how(_handover(target, odd), "mesh.order")[0] is Grade.APPROXIMATE


def test_experts_without_experts_are_refused() -> None:
    for target in FRAMEWORKS:
        assert _how(_handover(target, _plan(ep=2)), "mesh.ep")[0] is Grade.REFUSED


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name not in REFUSED])
def test_torchtitan_schedule_is_the_plans(schedule: str) -> None:
    """The CSV beside the TOML reads back as the plan's passes, recomputation and copies apart."""
    plan = _of_schedule(schedule)
    job = Job(plan, "small.plan", "0" * 64)
    found = TARGETS["torchtitan"].make(job)
    settings = tomllib.loads(found.files["job.toml"])["parallelism"]
    if plan.train.slices > 1:
        assert "pipeline_parallel_schedule_csv" not in settings
        return
    read = parse_torch_csv(found.files["schedule.csv"], "schedule.csv").order()

    assert settings["pipeline_parallel_schedule_csv"] == "schedule.csv"
    assert job.order.same_passes(read)
    assert len(settings["module_fqns_per_model_part"]) == len(plan.stages)


def test_torchtitan_flavor_where_it_has_one() -> None:
    plan = _plan(preset="llama3-8b", tp=2, num_microbatches=4, seq=8192)
    found = _handover("torchtitan", plan)

    assert tomllib.loads(found.files["job.toml"])["model"] == {"name": "llama3", "flavor": "8B"}
    assert "exactmap_flavor.py" not in found.files


@pytest.mark.parametrize("preset", ["byte-tiny", "llama2-7b", "llama3-8b"])
def test_made_flavor_has_the_right_width(preset: str) -> None:
    """The numbers of the module that is written give the plan's feed-forward width by torchtitan's rule."""
    model = _plan(preset=preset, num_microbatches=2).model
    model = replace(model, vocab=model.vocab + 1)
    found = _handover("torchtitan", replace(_plan(preset=preset, num_microbatches=2), model=model))
    numbers = dict(
        line.strip().rstrip(",").split("#")[0].strip().rstrip(",").split("=", 1)
        for line in found.files["exactmap_flavor.py"].splitlines()
        if line.startswith("    ") and "RoPE" not in line
    )

    assert (
        derived_ffn(model.hidden, int(numbers["multiple_of"]), float(numbers["ffn_dim_multiplier"]))
        == model.ffn
    )


def test_torchtitan_has_no_gpt2() -> None:
    assert _how(_handover("torchtitan", _plan(preset="gpt2")), "model.kind")[0] is Grade.REFUSED


def test_replicas_of_their_own_are_mentioned() -> None:
    plan = _plan(dp=2)
    own = replace(plan, maps=(*plan.maps, MapLine(0, 1, plan.maps[0].program)))
    for target in FRAMEWORKS:
        assert _how(_handover(target, own), "maps") == (Grade.APPROXIMATE, "all replicas run alike")


def test_a_free_clock_is_mentioned() -> None:
    plan = _plan("zb-h2", clock="free", late_norm=True)
    for target in FRAMEWORKS:
        assert _how(_handover(target, plan), "passes.late_norm")[0] is Grade.APPROXIMATE


def test_unknown_models_refuse_nothing_silently() -> None:
    """A rotary base that is no whole number, a vocabulary that tp does not divide."""
    plan = _plan(tp=2)
    model: PlanModel = replace(plan.model, theta=10000.5)
    found = _handover("megatron", replace(plan, model=model))

    assert _how(found, "model.theta") == (Grade.APPROXIMATE, "--rotary-base takes whole numbers: 10000")
    assert _how(found, "model.vocab") == (Grade.APPROXIMATE, "padded to 260, a multiple of tp")


def test_slurm_and_mpi_say_the_map() -> None:
    """With dead GPUs the places are a file; ranks of a host still follow each other."""
    plan = _plan(tp=4, dp=2)
    laid = _laid(plan, "cluster.num_gpus=24", "map.exclude=[gpu 1, gpu 9]")
    slurm, mpi = _handover("slurm", plan, laid), _handover("mpi", plan, laid)
    gpu = laid.exact_map.gpu
    machine = laid.exact_map.machine
    hosts = [laid.hosts[host] for host in machine.host(gpu).tolist()]

    assert slurm.files["hosts.txt"].split() == hosts
    assert [int(place) for place in slurm.files["places.txt"].split()] == machine.place(gpu).tolist()
    assert "--nodes=3" in slurm.files["job.sbatch"]
    assert mpi.files["machinefile.txt"] == "node0:7\nnode1:7\nnode2:2\n"
    assert mpi.files["rankfile.txt"].splitlines()[1] == "rank 1=node0 slot=2"
    assert slurm.verdict.grade is mpi.verdict.grade is Grade.EXACT
    assert "map.exclude" in {line.fact for line in slurm.verdict.lines}


def test_binding_scripts_give_each_rank_its_gpu(tmp_path: Path) -> None:
    """The scripts are run as tasks would run them."""
    plan = _plan(tp=4, dp=2)
    laid = _laid(plan, "cluster.num_gpus=24", "map.exclude=[gpu 1, gpu 9]")
    for target, variables in (
        ("slurm", {"SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_NTASKS": "16"}),
        ("mpi", {"PMI_RANK": "3", "MPI_LOCALRANKID": "3", "PMI_SIZE": "16"}),
    ):
        folder = tmp_path / target
        folder.mkdir()
        for name, content in _handover(target, plan, laid).files.items():
            (folder / name).write_text(content, encoding="ascii")
        done = subprocess.run(
            ["bash", str(folder / "bind.sh"), "bash", "-c", "echo $RANK $WORLD_SIZE $LOCAL_RANK"],
            env=variables | {"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )

        assert done.stdout == "3 16 4\n"


def test_scripts_are_bash_and_pass_arguments_on(tmp_path: Path) -> None:
    """Every script parses; Megatron's, in a rank, starts the program with the arguments of the JSON."""
    plan = _plan("interleaved-1f1b", chunks=2, layers=[1, 1, 2, 0])
    laid = _laid(plan, "cluster.num_gpus=16")
    for target in TARGETS:
        for name, content in _handover(target, plan, laid).files.items():
            if content.startswith("#!"):
                subprocess.run(["bash", "-n"], input=content, text=True, check=True)
                assert name.endswith((".sh", ".sbatch"))
    megatron = _handover("megatron", plan)
    script = tmp_path / "launch.sh"
    script.write_text(megatron.files["launch.sh"], encoding="ascii")
    (tmp_path / "python").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n', encoding="ascii")
    (tmp_path / "python").chmod(0o755)
    done = subprocess.run(
        ["bash", str(script), "--mock-data"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "RANK": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.splitlines()
    arguments = json.loads(megatron.files["arguments.json"])["arguments"]

    assert words[0] == "./pretrain_gpt.py"
    assert words[-1] == "--mock-data"
    for name, value in arguments.items():
        assert name in words
        assert value is True or words[words.index(name) + 1] == str(value)
    assert shlex.split(shlex.quote(str(arguments["--pipeline-model-parallel-layout"]))) == ["Et|t|t*2|L"]


def test_a_map_that_mpich_cannot_say() -> None:
    """Ranks that come back to a host: no machine file, and the account says why."""
    plan = _plan(tp=2)
    laid = _laid(plan, "cluster.num_gpus=16")
    gpu = np.array([0, 8, 1, 9])
    found = _handover("mpi", plan, replace(laid, exact_map=replace(laid.exact_map, gpu=gpu)))

    assert "machinefile.txt" not in found.files
    assert found.verdict.grade is Grade.APPROXIMATE
    assert found.files["hosts.txt"].split() == ["node0", "node1", "node0", "node1"]


def _small() -> tuple[Plan, LaidRanks]:
    plan = _plan(
        "zb-h1", tp=2, dp=2, layers=[3, 1], shard_params=True, mesh_order=("tp", "cp", "ep", "dp", "pp")
    )
    return plan, _laid(plan, "cluster.num_gpus=16", "map.exclude=[gpu 2]")


@pytest.mark.parametrize("target", TARGETS)
def test_golden_files(target: str, compare_golden: Callable[[Path, str], None]) -> None:
    """All files that one small plan gives, and the account of each target."""
    plan, laid = _small()
    job = Job(plan, "small.plan", "0" * 64, laid)
    found = TARGETS[target].make(job)
    files = dict(found.files) | {"cannot.md": cannot_page(job, found.verdict)}
    for name, content in files.items():
        compare_golden(GOLDEN / target / name, content.replace("\r\n", "\n"))

    assert {path.name for path in (GOLDEN / target).iterdir()} == set(files)


def test_a_large_job_is_written_in_seconds() -> None:
    """193,536 ranks of 220,000 GPUs: lists of hosts, places and rank file agree with the map at both ends."""
    plan = replace(_plan(), mesh=MeshDims(16, 2, 1, 48, 126, ("tp", "cp", "ep", "dp", "pp")))
    laid = _laid(plan, "cluster.num_gpus=220000", cluster="gb300-nvl72")
    small = replace(plan, mesh=_plan().mesh)
    job = Job(small, "small.plan", "0" * 64, laid)
    slurm, mpi = TARGETS["slurm"].make(job), TARGETS["mpi"].make(job)
    last = laid.exact_map.gpu[-1]

    assert slurm.files["hosts.txt"].count("\n") == 193_536
    assert slurm.files["hosts.txt"].split()[-1] == laid.hosts[int(laid.exact_map.machine.host(last))]
    assert mpi.files["rankfile.txt"].count("\n") == 193_536
