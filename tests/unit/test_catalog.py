"""The catalog: parts and clusters as data, each number with a source; overrides, errors, power, the verb."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import exactmap
from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.cluster_document import cluster_document
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.scenario.document import Problems, take_facts, validate
from exactmap.sim.scenario.load_part import load_cable, load_switch
from exactmap.sim.scenario.parts import part_document, part_names
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.sim.scenario.schema import (
    CableSection,
    GpuSection,
    HostSection,
    RackSection,
    ScaleOutSection,
    ScaleUpSection,
    SwitchSection,
)
from exactmap.topology.catalog import PART_KINDS, catalog_names, catalog_path, parts_path
from exactmap.topology.fabric.spec import FabricKind
from exactmap.topology.hardware import Cluster
from exactmap.topology.power import cluster_power

CONFIDENCES = {"measured", "datasheet", "derived", "recalled", "assumed"}
TEXTS = {"name", "cpu", "curves", "kernels", "link", "kind", "part"}
SECTIONS = {
    "gpus": GpuSection,
    "hosts": HostSection,
    "racks": RackSection,
    "scale-up": ScaleUpSection,
    "interfaces": ScaleOutSection,
    "switches": SwitchSection,
    "cables": CableSection,
}
PARTS = [(kind, name) for kind in PART_KINDS for name in part_names(kind)]
REST = "model: gpt2\ntraining: {sequence: 1024, batch: 64 sequences}\n"


def bare_numbers(value: object, path: str = "") -> list[str]:
    """Values that are neither facts nor names."""
    if isinstance(value, dict) and "value" in value:
        assert value["source"]
        assert value["confidence"] in CONFIDENCES
        return []
    pairs = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    )
    if pairs is None:
        return [] if isinstance(value, str) and path.rpartition(".")[2] in TEXTS else [path]
    return [bare for key, entry in pairs for bare in bare_numbers(entry, f"{path}.{key}")]


def scenario(folder: Path, cluster: str) -> Path:
    path = folder / "s.yaml"
    path.write_text(f"exactmap: 1\ncluster: {cluster}\n{REST}", encoding="utf-8")
    return path


def cluster_of(folder: Path, cluster: str) -> Cluster:
    return load_scenario(scenario(folder, cluster)).cluster


@pytest.mark.parametrize("name", catalog_names())
def test_every_number_of_a_cluster_is_a_fact(name: str) -> None:
    """Bare numbers are for users' own files; what is put together has facts for all that it uses."""
    written = yaml.safe_load(catalog_path(name).read_text(encoding="utf-8"))
    cluster = load_cluster(name)

    assert bare_numbers(written) == [".exactmap-cluster"]
    assert cluster.name == name
    assert len(cluster.facts) >= 25
    assert all(fact.source and fact.confidence in CONFIDENCES for fact in cluster.facts.values())
    numbers = {number.field for number in exactmap.catalog(name).entries[0].numbers}
    assert numbers == set(cluster.facts)


@pytest.mark.parametrize("kind", PART_KINDS)
def test_every_number_of_a_part_is_a_fact(kind: str) -> None:
    written = yaml.safe_load(parts_path(kind).read_text(encoding="utf-8"))

    assert bare_numbers(written) == [".exactmap-parts"]


@pytest.mark.parametrize(("kind", "name"), PARTS, ids=[f"{kind}/{name}" for kind, name in PARTS])
def test_every_part_is_whole(kind: str, name: str) -> None:
    """It has the fields of its section and lacks none that all of its kind must have."""
    problems = Problems()
    document, facts = take_facts(part_document(kind, name), problems)
    section = validate(document, SECTIONS[kind], problems)

    assert problems.found == []
    assert section is not None
    may_lack = {"part", "kernels", "gemm", "gemm_efficiency", "attention_efficiency", "domain_size"}
    may_lack |= {"reduction"} if kind in {"scale-up", "switches"} else {"power"} if kind == "racks" else set()
    for field in set(SECTIONS[kind].model_fields) - may_lack:
        assert getattr(section, field) is not None, field
    assert facts


def test_the_catalog_has_what_it_should() -> None:
    gpus = {
        "V100-16G",
        "V100-32G",
        "A100-40G",
        "A100-80G",
        "H100",
        "H200",
        "H800",
        "B200",
        "B300",
        "GB200",
        "GB300",
    }
    clusters = {"v100-8", "a100-8", "a100-40g-8", "h100-8", "h200-8", "h800-8", "b200-8", "b300-8"}

    assert set(part_names("gpus")) == gpus
    assert clusters | {"gb200-nvl72", "gb300-nvl72", "gb300-nvl72-ethernet", "cpu-host"} == set(
        catalog_names()
    )
    assert {"ConnectX-6", "ConnectX-7", "ConnectX-8"} <= set(part_names("interfaces"))
    assert {"QM8700", "QM9700", "Q3400", "SN5600", "SN5610", "SN6810", "SN6800"} <= set(
        part_names("switches")
    )


T = 10**12
G = 10**9


@pytest.mark.parametrize(
    ("name", "bf16", "fp8", "memory_mib", "memory_per_s", "link", "interface", "watts"),
    [
        ("a100-8", 312 * T, None, 81_920, 2039 * G, 300 * G, 25 * G, 400),
        ("h100-8", 989 * T, 1979 * T, 81_559, 3350 * G, 450 * G, 50 * G, 700),
        ("h200-8", 989 * T, 1979 * T, 143_771, 4800 * G, 450 * G, 50 * G, 700),
        ("h800-8", 989 * T, 1979 * T, 81_559, 3350 * G, 200 * G, 50 * G, 700),
        ("b200-8", 2250 * T, 4500 * T, 183_359, 7700 * G, 900 * G, 50 * G, 1000),
        ("b300-8", 2250 * T, 4500 * T, 275_040, 8000 * G, 900 * G, 100 * G, 1100),
        ("gb200-nvl72", 2500 * T, 5000 * T, 189_471, 8000 * G, 900 * G, 50 * G, 1200),
        ("gb300-nvl72", 2500 * T, 5000 * T, 284_208, 8000 * G, 900 * G, 100 * G, 1400),
    ],
)
def test_gpus_are_those_of_the_published_tables(
    name: str,
    bf16: int,
    fp8: int | None,
    memory_mib: int,
    memory_per_s: int,
    link: int,
    interface: int,
    watts: int,
) -> None:
    """System files of aiconfigurator, data sheets, and what drivers report."""
    cluster = load_cluster(name)

    assert cluster.gpu.peak("bf16") == bf16
    assert cluster.gpu.peak_flop_per_s.get("fp8") == fp8
    assert cluster.gpu.memory_bytes == memory_mib * 2**20
    assert cluster.gpu.memory_bytes_per_s == memory_per_s
    assert cluster.scale_up.bytes_per_s == link
    assert cluster.scale_out.bytes_per_s == interface
    assert cluster.gpu.power_w == watts


def test_racks_add_up_to_the_published_sums() -> None:
    """GB300 NVL72: 1080 PF of FP4, 180 PF of BF16, 20 TB at 576 TB/s, 130 TB/s of NVLink, 36 Grace."""
    cluster = load_cluster("gb300-nvl72")
    gpu, host, rack = cluster.gpu, cluster.host, cluster.rack

    assert host is not None
    assert rack is not None
    assert rack.num_hosts * cluster.gpus_per_host == cluster.num_gpus == cluster.scale_up.domain_size == 72
    assert 72 * gpu.peak("fp4") == 1080 * 10**15
    assert 72 * gpu.peak("bf16") == 180 * 10**15
    assert 72 * gpu.memory_bytes_per_s == 576 * T
    assert 72 * gpu.memory_bytes == pytest.approx(20 * T, rel=0.08)
    assert rack.num_hosts * host.num_cpus == 36
    assert rack.num_switch_trays * rack.chips_per_tray == 18
    assert 2 * 72 * cluster.scale_up.bytes_per_s == pytest.approx(130 * T, rel=0.01)


def test_recipes_divide_by_their_own_peak() -> None:
    """2450 / 4900 / 14700 on GB300, 9800 on GB200 (dgxc-benchmarking); elsewhere the peak itself."""
    gb200, gb300, h100 = (load_cluster(name).gpu for name in ("gb200-nvl72", "gb300-nvl72", "h100-8"))

    assert [gb300.recipe_peak(dtype) // T for dtype in ("bf16", "fp8", "fp4")] == [2450, 4900, 14_700]
    assert [gb200.recipe_peak(dtype) // T for dtype in ("bf16", "fp8", "fp4")] == [2450, 4900, 9800]
    assert h100.recipe_peak("bf16") == h100.peak("bf16")
    with pytest.raises(InvalidInputError, match="H100 has no fp4"):
        h100.recipe_peak("fp4")


@pytest.mark.parametrize(
    ("name", "rate", "radix", "two_tiers", "three_tiers"),
    [
        ("SN5600", 100 * G, 64, 2048, 65_536),
        ("SN5600", 50 * G, 128, 8192, 524_288),
        ("SN5600", 25 * G, 256, 32_768, 4_194_304),
        ("Q3400", 100 * G, 144, 10_368, 746_496),
        ("Q3450", 100 * G, 144, 10_368, 746_496),
        ("SN6810", 25 * G, 512, 131_072, None),
        ("SN6800", 100 * G, 512, 131_072, None),
    ],
)
def test_switches_reach_the_published_sizes(
    name: str, rate: int, radix: int, two_tiers: int, three_tiers: int | None
) -> None:
    """Ports at a rate, and what non-blocking trees of two and three tiers reach with them."""
    ports = load_switch(name).radix(rate)

    assert ports == radix
    assert ports**2 // 2 == two_tiers
    assert three_tiers is None or ports**3 // 4 == three_tiers


def test_switches_and_cables_come_by_name() -> None:
    assert load_switch("Q3400").reduction == "SHARPv4"
    assert load_switch("SN5600").reduction == ""
    assert load_cable("DAC-800G").power_w == 0
    assert load_cable("optics-800G").ns_per_m == 5.0
    with pytest.raises(InvalidInputError, match="did you mean 'SN5610' or 'SN5600'"):
        load_switch("SN5660")


def test_the_ethernet_rack_is_the_same_rack_on_four_planes() -> None:
    infiniband, ethernet = load_cluster("gb300-nvl72"), load_cluster("gb300-nvl72-ethernet")

    assert (infiniband.fabric.planes, ethernet.fabric.planes) == (1, 4)
    assert ethernet.fabric.kind is FabricKind.FAT_TREE
    assert ethernet.fabric.switches[0].radix(ethernet.scale_out.bytes_per_s / 4) == 256
    assert replace(ethernet, name="gb300-nvl72", fabric=infiniband.fabric) == infiniband


@pytest.mark.parametrize("name", catalog_names())
def test_a_cluster_written_out_is_the_same_cluster(name: str, tmp_path: Path) -> None:
    """The effective scenario names no part and gives an equal cluster."""
    path = scenario(tmp_path, name)
    before = load_scenario(path, ["training.precision=fp32"])
    (tmp_path / "effective.yaml").write_text(before.effective(), encoding="utf-8")

    assert "part:" not in before.effective()
    assert load_scenario(tmp_path / "effective.yaml").cluster == before.cluster


def test_a_number_beside_a_part_replaces_the_part_s_own(tmp_path: Path) -> None:
    """Its fact goes with it; the others keep theirs."""
    cluster = cluster_of(
        tmp_path,
        "{catalog: gb300-nvl72, gpu: {power: 1200 W, peak: {bf16: 2 PFLOP/s}}, host: {to_gpu: 100 GB/s}}",
    )

    assert (cluster.gpu.power_w, cluster.gpu.peak("bf16"), cluster.gpu.peak("fp8")) == (
        1200,
        2000 * T,
        5000 * T,
    )
    assert cluster.host is not None
    assert (cluster.host.to_gpu_bytes_per_s, cluster.host.from_gpu_bytes_per_s) == (100 * G, 193 * G)
    assert {"gpu.power", "gpu.peak.bf16", "host.to_gpu"}.isdisjoint(cluster.facts)
    assert cluster.facts["gpu.peak.fp8"].confidence == "datasheet"
    assert cluster.facts["fabric.switches.0.ports"].value == "144"


def test_another_part_takes_away_all_of_the_part_before(tmp_path: Path) -> None:
    """An H100 in a rack of GB300 has no fp4; how many GPUs NVLink joins stays."""
    cluster = cluster_of(
        tmp_path,
        "{catalog: gb300-nvl72, gpu: {part: H100, power: 650 W}, scale_up: {part: NVLink-4}, "
        "scale_out: {part: ConnectX-7}, fabric: {switches: [{part: QM9700, hop: 140 ns}, {part: Q3400}]}}",
    )

    assert (cluster.gpu.name, cluster.gpu.power_w, cluster.gpu.idle_power_w) == ("H100", 650, 70)
    assert set(cluster.gpu.peak_flop_per_s) == {"fp32", "bf16", "fp8"}
    assert dict(cluster.gpu.recipe_peak_flop_per_s) == {}
    assert (cluster.scale_up.bytes_per_s, cluster.scale_up.domain_size) == (450 * G, 72)
    assert [(switch.num_ports, switch.hop_ns) for switch in cluster.fabric.switches] == [
        (64, 140),
        (144, 150),
    ]


def test_a_cluster_of_one_s_own_is_made_of_parts(tmp_path: Path) -> None:
    """A file beside the scenario; its numbers, the catalog's parts, the scenario's overrides."""
    (tmp_path / "my.yaml").write_text(
        """exactmap-cluster: 1
name: mine
num_gpus: 64
gpus_per_host: 8
used_per_domain: 8
gpu: {part: H200, memory: {value: 140 GiB, source: our own nvidia-smi, confidence: given}}
host: {part: DGX-H200}
scale_up: {part: NVLink-4, domain_size: 8}
scale_out: {part: BlueField-3}
fabric: {kind: fat_tree, switches: [{part: SN5600}], rails: 8}
""",
        encoding="utf-8",
    )

    cluster = cluster_of(tmp_path, "{file: my.yaml, num_gpus: 128, scale_out: {latency: 4 us}}")

    assert (cluster.name, cluster.num_gpus, cluster.rack) == ("mine", 128, None)
    assert cluster.gpu.memory_bytes == 140 * 2**30
    assert cluster.facts["gpu.memory"].confidence == "given"
    assert cluster.scale_out.name == "BlueField-3 400G"
    assert cluster.scale_out.latency_ns == 4000
    assert load_cluster(tmp_path / "my.yaml").num_gpus == 64
    assert exactmap.catalog(tmp_path / "my.yaml").entries[0].name == "mine"


def test_a_whole_file_of_bare_numbers_needs_no_part(tmp_path: Path) -> None:
    """One that lacks numbers is refused with the name of each."""
    document = {"exactmap-cluster": 1, **cluster_document(load_cluster("h100-8"))}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")

    assert cluster_of(tmp_path, "my.yaml") == load_cluster("h100-8")

    (tmp_path / "my.yaml").write_text(
        "exactmap-cluster: 1\nname: mine\nnum_gpus: 8\ngpu: {part: H100}\nrack: {name: r}\n"
        "fabric: {switches: [{name: s, ports: 8}]}\n",
        encoding="utf-8",
    )
    with pytest.raises(InvalidInputError) as caught:
        cluster_of(tmp_path, "my.yaml")
    message = str(caught.value)
    assert "my.yaml:5: cluster.rack.hosts: a field is missing" in message
    assert "my.yaml:6: cluster.fabric.switches.0.port_rate: a field is missing" in message
    assert "cluster.scale_up.bandwidth: a field is missing" in message
    assert "cluster.gpu.memory: a field" not in message


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (
            "{catalog: h100-8, gpu: {part: H1000}}",
            r"s\.yaml:2: cluster\.gpu\.part: unknown part: got 'H1000'",
        ),
        ("{catalog: h100-8, gpu: {part: gb300}}", r"hint: did you mean 'GB300' or 'B300'"),
        ("{catalog: h100-8, gpu: {part: QM9700}}", "QM9700 is one of the switches"),
        ("{catalog: h100-8, host: {part: 7}}", r"cluster\.host\.part: wrong value"),
        (
            "{catalog: h100-8, fabric: {switches: [{part: SN5600}, {part: SN9999}]}}",
            r"cluster\.fabric\.switches\.1\.part: unknown part",
        ),
        (
            "{catalog: h100-8, fabric: {planes: 8}}",
            r"s\.yaml:2: cluster\.fabric\.planes: the interface cannot .* at most 4 with ConnectX-7 400G",
        ),
        ("{catalog: h100-8, rack: {part: HGX-4, host: 3}}", "did you mean 'hosts'"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(cluster: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=message):
        cluster_of(tmp_path, cluster)


def test_a_wrong_number_beside_a_part_is_found_where_it_stands(tmp_path: Path) -> None:
    """Not in the part's file, which is right."""
    with pytest.raises(InvalidInputError, match=r"s\.yaml:2: cluster\.gpu\.memory: the unit is missing"):
        cluster_of(tmp_path, "{catalog: h100-8, gpu: {memory: 80}}")


@pytest.mark.parametrize("name", ["gb200-nvl72", "gb300-nvl72"])
def test_a_rack_s_components_stay_under_what_the_whole_may_draw(name: str) -> None:
    """Conversion, pumps and management are the rest: less than a fifth."""
    cluster = load_cluster(name)
    power = cluster_power(cluster, per_rack=True)

    assert cluster.rack is not None
    assert 0.8 * cluster.rack.power_w < power.rated_w < cluster.rack.power_w
    assert 0.1 * power.rated_w < power.idle_w < 0.3 * power.rated_w


@pytest.mark.parametrize(
    ("name", "watts"),
    [
        ("h100-8", 10_200),
        ("h200-8", 10_200),
        ("b200-8", 14_300),
        ("b300-8", 14_000),
        ("a100-8", 6500),
        ("v100-8", 3500),
    ],
)
def test_a_host_with_its_gpus_draws_what_its_data_sheet_says(name: str, watts: int) -> None:
    assert cluster_power(load_cluster(name)).rated_w == watts


def test_power_counts_racks_and_hosts_that_are_partly_filled() -> None:
    """73 GPUs are two racks of switch trays, and 19 trays."""
    cluster = replace(load_cluster("gb300-nvl72"), num_gpus=73)
    power = {draw.name: draw for draw in cluster_power(cluster).draws}

    assert {name: draw.num for name, draw in power.items()} == {
        "GPUs": 73,
        "hosts": 19,
        "NVLink switches": 18,
        "interfaces": 73,
    }
    assert power["NVLink switches"].rated_w == 18 * 400
    assert (cluster.num_hosts, cluster.num_racks) == (19, 2)
    assert cluster_power(replace(cluster, rack=None, host=None)).draws[0].rated_w == 73 * 1400


def test_the_catalog_is_listed_whole() -> None:
    entries = exactmap.catalog().entries

    assert [(entry.kind, entry.name) for entry in entries if entry.kind != "clusters"] == PARTS
    assert {entry.name for entry in entries if entry.kind == "clusters"} == set(catalog_names())
    assert all(entry.about and not entry.numbers for entry in entries)
    document = json.loads(json.dumps(exactmap.catalog("gb300-nvl72").to_dict()))
    assert document["entries"][0]["rack_power"]["rated_w"] == 120_600
    assert {"field", "value", "source", "confidence"} == set(document["entries"][0]["numbers"][0])


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match="did you mean 'GB300'"):
        exactmap.catalog("GB3000")
    with pytest.raises(InvalidInputError, match=r"nowhere\.yaml: cannot read the file"):
        exactmap.catalog("nowhere.yaml")


def test_the_reference_s_worked_example_is_right(tmp_path: Path) -> None:
    """The cluster file and the timings of docs/reference/scenario.md, as they stand there."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "scenario.md").read_text(encoding="utf-8")
    cluster = page[page.index("exactmap-cluster: 1\nname: our-h200") :].split("```", 1)[0]
    timings = page[page.index("dtype,m,n,k,us\n") :].split("```", 1)[0]
    (tmp_path / "my.yaml").write_text(cluster, encoding="utf-8")
    (tmp_path / "our-gemm.csv").write_text(timings, encoding="utf-8")

    made = cluster_of(tmp_path, "{file: my.yaml, num_gpus: 256}")

    assert (made.name, made.num_gpus, made.fabric.planes) == ("our-h200", 256, 2)
    assert made.scale_out.efficiency == 0.95
    assert made.gpu.gemm is not None
    assert len(made.gpu.gemm.rows) == 3
