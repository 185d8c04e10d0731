"""What a scenario may say: its sections, fields, units and defaults, and the JSON schema made from them.

The classes are the file's border; inside, `exactmap.sim.scenario.scenario` has plain frozen types. A field
that a search may choose takes one value, a list of values, or ``auto``.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.checked import checked as _checked
from exactmap.sim.scenario.state_schema import StateSection
from exactmap.sim.scenario.units import (
    Batch,
    parse_batch,
    parse_bytes,
    parse_bytes_per_s,
    parse_flop_per_s,
    parse_ns,
    parse_tokens,
    parse_watts,
)
from exactmap.sim.schedules.registry import find_schedule

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

def _quantity(text: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": text, "examples": list(examples)})


Bytes = Annotated[
    int, BeforeValidator(_checked(parse_bytes)), _quantity("size with its unit", "186 GiB", "512 MB")
]
BytesPerS = Annotated[
    int,
    BeforeValidator(_checked(parse_bytes_per_s)),
    _quantity("rate; b is bit, B is byte", "800 Gb/s", "3.35 TB/s"),
]
FlopPerS = Annotated[
    int, BeforeValidator(_checked(parse_flop_per_s)), _quantity("compute rate", "2.5 PFLOP/s")
]
Ns = Annotated[int, BeforeValidator(_checked(parse_ns)), _quantity("time with its unit", "3.5 us", "2 h")]
Watts = Annotated[int, BeforeValidator(_checked(parse_watts)), _quantity("power", "1400 W")]
Tokens = Annotated[
    int,
    BeforeValidator(_checked(parse_tokens)),
    WithJsonSchema(
        {"type": ["string", "integer"], "description": "tokens", "examples": ["4096 tokens", 4096]}
    ),
]
BatchSize = Annotated[
    Batch, BeforeValidator(_checked(parse_batch)), _quantity("global batch", "1024 sequences", "4Mi tokens")
]


def _choice(value: object) -> tuple[int, ...] | None:
    """One whole number, a list of them, or ``auto`` (None)."""
    if value == "auto":
        return None
    entries = cast(list[object], value) if isinstance(value, list) else [value]
    if not entries or not all(isinstance(entry, int) and not isinstance(entry, bool) for entry in entries):
        raise InvalidInputError(
            "wrong value", got=repr(value)[:80], expected="a whole number, a list of them, or auto"
        )
    numbers = cast(list[int], entries)
    if min(numbers) < 1:
        raise InvalidInputError("size must be positive", got=str(min(numbers)), expected="at least 1")
    if len(set(numbers)) != len(numbers):
        raise InvalidInputError("a value stands twice in the list", got=str(numbers))
    return tuple(numbers)


def _schedules(value: object) -> tuple[str, ...] | None:
    """One schedule, a list of them, or ``auto`` (None)."""
    if value == "auto":
        return None
    entries = cast(list[object], value) if isinstance(value, list) else [value]
    if not entries or not all(isinstance(entry, str) for entry in entries):
        raise InvalidInputError(
            "wrong value", got=repr(value)[:80], expected="a schedule's name, a list, or auto"
        )
    names = cast(list[str], entries)
    return tuple(find_schedule(name).name for name in names)


_WHOLE: dict[str, object] = {"type": "integer", "minimum": 1}
Choice = Annotated[
    tuple[int, ...] | None,
    BeforeValidator(_checked(_choice)),
    WithJsonSchema({"anyOf": [_WHOLE, {"type": "array", "items": _WHOLE, "minItems": 1}, {"const": "auto"}]}),
]
ScheduleChoice = Annotated[
    tuple[str, ...] | None,
    BeforeValidator(_checked(_schedules)),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]

FabricKindName = Literal["ideal", "fat_tree", "dual_tor", "dragonfly", "torus"]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PeakSection(_Section):
    """Dense peak by number format."""

    fp32: FlopPerS | None = None
    bf16: FlopPerS | None = None
    fp8: FlopPerS | None = None
    fp4: FlopPerS | None = None


class GpuSection(_Section):
    """The GPU's numbers; those left out keep the catalog's values."""

    name: str | None = None
    curves: str | None = Field(
        default=None, description="whose measured curves describe it: GB300, H100, ...; empty: none"
    )
    peak: PeakSection = PeakSection()
    memory: Bytes | None = None
    memory_bandwidth: BytesPerS | None = None
    memory_efficiency: Share | None = None
    launch: Ns | None = None
    reserved_memory: Bytes | None = None
    power: Watts | None = None


class ScaleUpSection(_Section):
    """The network inside a domain (NVLink)."""

    name: str | None = None
    domain_size: Positive | None = None
    bandwidth: BytesPerS | None = Field(default=None, description="per GPU, one direction")
    efficiency: Share | None = None
    latency: Ns | None = None


class ScaleOutSection(_Section):
    """A GPU's interface to the network between domains."""

    name: str | None = None
    bandwidth: BytesPerS | None = Field(default=None, description="per GPU, one direction")
    efficiency: Share | None = None
    latency: Ns | None = Field(default=None, description="of a small message through one leaf switch")


class SwitchSection(_Section):
    """A packet switch of the fabric."""

    name: str
    ports: Positive = Field(description="at full rate")
    port_rate: BytesPerS = Field(description="of a full port, one direction")
    max_ports: Positive | None = Field(
        default=None, description="when all are split; default: they cannot be"
    )
    hop: Ns = Field(description="time of a packet through it")
    power: Watts


class FabricSection(_Section):
    """The network that the interfaces are attached to."""

    kind: FabricKindName = "ideal"
    switches: list[SwitchSection] | None = Field(
        default=None, description="by tier from the leaves up; the last stands for all further tiers"
    )
    tiers: Annotated[int, Field(ge=1, le=4)] | None = Field(default=None, description="default: the fewest")
    planes: Annotated[int, Field(ge=1, le=16)] = 1
    rails: Annotated[int, Field(ge=1, le=1024)] = 1
    oversubscription: list[Annotated[float, Field(ge=1.0)]] | None = Field(
        default=None, description="by tier from the leaves up: rate down over rate up"
    )
    cable: Ns | None = Field(default=None, description="time in one cable between switches")
    shape: list[Positive] | None = Field(
        default=None,
        description="torus: sizes; dragonfly: endpoints per router, routers per group, global links of each",
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
    scale_up: ScaleUpSection = ScaleUpSection()
    scale_out: ScaleOutSection = ScaleOutSection()
    fabric: FabricSection = FabricSection()


class ModelSection(_Section):
    """The model: a preset, a Hugging Face file, or its sizes; sizes beside a preset replace its own."""

    preset: str | None = None
    huggingface: str | None = Field(default=None, description="a config.json, relative to the scenario")
    name: str | None = None
    kind: Literal["gpt", "llama"] | None = None
    layers: Positive | None = None
    hidden: Positive | None = None
    heads: Positive | None = None
    kv_heads: Positive | None = None
    head_dim: Positive | None = None
    ffn: Positive | None = None
    vocab: Positive | None = None
    positions: Positive | None = None
    tied: bool | None = None
    norm_eps: Annotated[float, Field(gt=0.0)] | None = None
    rope_theta: Annotated[float, Field(gt=0.0)] | None = None


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
    dp: Choice = None
    chunks: Choice = None
    microbatch: Choice = None
    schedule: ScheduleChoice = None


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
    execution: ExecutionSection | None = None


def scenario_json_schema() -> str:
    """The JSON schema of scenario files, as published in ``scenarios/schema.json``."""
    schema = ScenarioFile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "exactmap scenario"
    properties = cast(dict[str, object], schema["properties"])
    for section, key in (("cluster", "catalog or file"), ("model", "preset"), ("data", "path"), ("state", "use")):
        short = {"type": "string", "description": f"short for {section}.{key}"}
        properties[section] = {"anyOf": [short, properties[section]]}
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"
