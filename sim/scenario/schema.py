"""What a scenario may say: its sections, fields, units and defaults, and the JSON schema made from them.

The classes are the file's border; inside, `exactmap.sim.scenario.scenario` has plain frozen types. A field
that a search may choose takes one value, a list of values, or ``auto``.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from exactmap.sim.scenario.fields import (
    BatchSize,
    Bytes,
    BytesPerS,
    Choice,
    Delay,
    ExpPerS,
    FlopPerS,
    MemorySize,
    ReplicaChoice,
    ScheduleChoice,
    Tokens,
    Watts,
    ZeroChoice,
)
from exactmap.sim.scenario.map_section import MapSection
from exactmap.sim.scenario.model_schema import ModelSection
from exactmap.sim.scenario.state_schema import StateSection

__all__ = [
    "ClusterSection",
    "DataSection",
    "ExecutionSection",
    "LimitsSection",
    "ModelSection",
    "OptimizerSection",
    "ParallelSection",
    "ScenarioFile",
    "TrainingSection",
    "scenario_json_schema",
]

FabricKindName = Literal["ideal", "fat_tree", "dual_tor", "rail_only", "dragonfly", "torus", "graph"]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Part = Annotated[
    str | None,
    Field(description="name of a part of the catalog, whose numbers stand for those left out here"),
]


class PeakSection(_Section):
    """Dense peak by number format."""

    fp32: FlopPerS | None = None
    bf16: FlopPerS | None = None
    fp8: FlopPerS | None = None
    fp4: FlopPerS | None = None


class GpuSection(_Section):
    """The GPU's numbers; those left out keep the catalog's values."""

    part: Part = None
    name: str | None = None
    curves: str | None = Field(
        default=None, description="whose measured curves describe it: GB300, H100, ...; empty: none"
    )
    kernels: str | None = Field(
        default=None, description="whose measured products and attention; default: those of curves"
    )
    gemm: str | None = Field(
        default=None, description="CSV file of products timed on it: dtype,m,n,k,us; relative to this file"
    )
    peak: PeakSection = PeakSection()
    recipe_peak: PeakSection = Field(
        default=PeakSection(), description="by which the vendor's recipes divide to state MFU"
    )
    memory: MemorySize | None = None
    memory_bandwidth: BytesPerS | None = None
    memory_efficiency: Share | None = None
    gemm_efficiency: Share | None = Field(
        default=None, description="share of peak of products where nothing measured describes it"
    )
    attention_efficiency: Share | None = None
    launch: Delay | None = None
    reserved_memory: Bytes | None = None
    exp_rate: ExpPerS | None = Field(default=None, description="exponentials (softmax)")
    power: Watts | None = None
    idle_power: Watts | None = None


class HostSection(_Section):
    """What the GPUs are plugged into."""

    part: Part = None
    name: str | None = None
    cpu: str | None = None
    cpus: Positive | None = None
    cores: Positive | None = Field(default=None, description="of all CPUs")
    memory: MemorySize | None = None
    memory_bandwidth: BytesPerS | None = None
    link: str | None = Field(default=None, description="between host and GPU")
    link_bandwidth: BytesPerS | None = Field(default=None, description="of one GPU's link, one direction")
    to_gpu: BytesPerS | None = Field(default=None, description="reached by copies of one GPU")
    from_gpu: BytesPerS | None = Field(default=None, description="reached by copies of one GPU")
    power: Watts | None = Field(default=None, description="without GPUs and their interfaces")
    idle_power: Watts | None = None


class RackSection(_Section):
    """What the hosts stand in."""

    part: Part = None
    name: str | None = None
    hosts: Positive | None = None
    switch_trays: Count | None = Field(default=None, description="of the scale-up network")
    chips_per_tray: Count | None = None
    tray_power: Watts | None = None
    tray_idle_power: Watts | None = None
    power: Watts | None = Field(default=None, description="the most that the rack may draw")


class ScaleUpSection(_Section):
    """The network inside a domain (NVLink)."""

    part: Part = None
    name: str | None = None
    domain_size: Positive | None = None
    bandwidth: BytesPerS | None = Field(default=None, description="per GPU, one direction")
    efficiency: Share | None = None
    latency: Delay | None = None
    reduction: str | None = Field(default=None, description="what sums in its switches: NVLink SHARP")


class ScaleOutSection(_Section):
    """A GPU's interface to the network between domains."""

    part: Part = None
    name: str | None = None
    bandwidth: BytesPerS | None = Field(default=None, description="per GPU, one direction")
    efficiency: Share | None = None
    latency: Delay | None = Field(default=None, description="of a small message through one leaf switch")
    max_ports: Positive | None = Field(default=None, description="ports that it can be split into")
    power: Watts | None = Field(default=None, description="for each GPU")


class SwitchSection(_Section):
    """A packet switch of the fabric."""

    part: Part = None
    name: str | None = None
    ports: Positive | None = Field(default=None, description="at full rate")
    port_rate: BytesPerS | None = Field(default=None, description="of a full port, one direction")
    max_ports: Positive | None = Field(
        default=None, description="when all are split; default: they cannot be"
    )
    hop: Delay | None = Field(default=None, description="time of a packet through it")
    power: Watts | None = Field(default=None, description="without optics")
    reduction: str | None = Field(default=None, description="what sums in it: SHARPv4; default: nothing")


class CableSection(_Section):
    """A cable with what is at its two ends."""

    part: Part = None
    name: str | None = None
    bandwidth: BytesPerS | None = None
    power: Watts | None = Field(default=None, description="of both ends together")
    ns_per_m: Annotated[float, Field(gt=0.0, le=1000.0)] | None = None
    reach_m: Positive | None = None


class EdgeSection(_Section):
    """A cable of a fabric of one's own."""

    a: str = Field(description="a GPU (gpu 17), or else a switch")
    b: str
    rate: BytesPerS = Field(description="of each direction")
    tier: Count = Field(description="0 at a GPU, t between tiers t and t + 1")


class FabricSection(_Section):
    """The network that the interfaces are attached to."""

    kind: FabricKindName = "ideal"
    switches: list[SwitchSection] | None = Field(
        default=None, description="by tier from the leaves up; the last stands for all further tiers"
    )
    cables: list[CableSection] | None = Field(default=None, description="the shortest reach first")
    tiers: Annotated[int, Field(ge=1, le=4)] | None = Field(default=None, description="default: the fewest")
    planes: Annotated[int, Field(ge=1, le=16)] | None = Field(
        default=None, description="default: the fewest that the switches' ports are fast enough for"
    )
    rails: Annotated[int, Field(ge=1, le=1024)] = 1
    oversubscription: list[Annotated[float, Field(ge=1.0)]] | None = Field(
        default=None, description="by tier from the leaves up: rate down over rate up"
    )
    cable: Delay | None = Field(default=None, description="time in one cable between switches")
    shape: list[Positive] | None = Field(
        default=None,
        description="torus: sizes; dragonfly: endpoints per router, routers per group, global links of each; "
        "fat trees that leave ports free: GPUs per leaf, leaves per pod, pods",
    )
    graph: str | list[EdgeSection] | None = Field(
        default=None, description="edges, or a CSV file of them: a,b,rate,tier; relative to this file"
    )


class ClusterSection(_Section):
    """The cluster: one of the catalog or a file of one's own, how many GPUs, and any number changed."""

    catalog: str | None = Field(default=None, description="name of a cluster that comes with exactmap")
    file: str | None = Field(default=None, description="a cluster file, relative to the scenario")
    name: str | None = None
    num_gpus: Positive | None = None
    hosts: Positive | None = Field(default=None, description="hosts instead of GPUs")
    gpus_per_host: Positive | None = None
    used_per_domain: Positive | None = Field(
        default=None, description="GPUs of a domain that take ranks; the rest are spares"
    )
    gpu: GpuSection = GpuSection()
    host: HostSection | None = None
    rack: RackSection | None = None
    scale_up: ScaleUpSection = ScaleUpSection()
    scale_out: ScaleOutSection = ScaleOutSection()
    fabric: FabricSection = FabricSection()
    collectives: list[str] | None = Field(
        default=None,
        description="files with collectives measured on it: output of nccl-tests, or CSV as the catalog's",
    )


class OptimizerSection(_Section):
    """AdamW with warm-up and cosine decay."""

    name: Literal["adamw"] = "adamw"
    lr: Annotated[float, Field(gt=0.0, lt=10.0)] = 3e-4
    min_lr: Annotated[float, Field(ge=0.0)] | None = Field(default=None, description="default: a tenth of lr")
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95
    eps: Annotated[float, Field(gt=0.0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    clip: Annotated[float, Field(ge=0.0)] = Field(
        default=1.0, description="bound on the global gradient norm; 0: none"
    )


class TrainingSection(_Section):
    """What is trained, in which numbers, for how long."""

    sequence: Tokens
    batch: BatchSize
    steps: Positive = 100
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    precision: Literal["fp32", "bf16", "fp8"] = "bf16"
    recompute: Literal["none"] = "none"
    optimizer: OptimizerSection = OptimizerSection()


class DataSection(_Section):
    """Where the tokens come from; left out: the Python standard library's own sources."""

    path: str | None = Field(
        default=None, description="token file or folder of text files, relative to the scenario"
    )


class ParallelSection(_Section):
    """What may vary: one value, a list of values, or auto."""

    tp: Choice = None
    cp: Choice = (1,)
    ep: Choice = (1,)
    pp: Choice = None
    dp: ReplicaChoice = None
    chunks: Choice = None
    microbatch: Choice = None
    schedule: ScheduleChoice = None
    zero: ZeroChoice = None


class LimitsSection(_Section):
    """What a plan must keep to."""

    memory_headroom: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.05, description="share of memory left free"
    )
    gpus: Positive | None = Field(default=None, description="most GPUs that a plan may use")


class ExecutionSection(_Section):
    """How the plan is to be executed."""

    engine: Literal["cpu"] = "cpu"


class ScenarioFile(_Section):
    """One scenario."""

    exactmap: Literal[1] = Field(description="version of this format")
    name: str | None = None
    cluster: ClusterSection
    model: ModelSection
    training: TrainingSection
    data: DataSection = DataSection()
    parallel: ParallelSection = ParallelSection()
    goal: Literal["step_time"] = "step_time"
    limits: LimitsSection = LimitsSection()
    state: StateSection = StateSection()
    map: MapSection = MapSection()
    execution: ExecutionSection | None = None


def scenario_json_schema() -> str:
    """The JSON schema of scenario files, as published in ``scenarios/schema.json``."""
    schema = ScenarioFile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "exactmap scenario"
    properties = cast(dict[str, object], schema["properties"])
    for section, key in (
        ("cluster", "catalog or file"),
        ("model", "preset"),
        ("data", "path"),
        ("state", "use"),
    ):
        short = {"type": "string", "description": f"short for {section}.{key}"}
        properties[section] = {"anyOf": [short, properties[section]]}
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"
