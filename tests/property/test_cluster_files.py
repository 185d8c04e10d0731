"""Clusters from any parts and numbers: what is written holds, all else is the part's, nothing is lost."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from exactmap.sim.scenario.cluster_document import cluster_document
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.scenario.parts import part_names
from exactmap.topology.catalog import catalog_names
from exactmap.topology.hardware import Cluster

NAMES = st.sampled_from([name for name in catalog_names() if name != "cpu-host"])


def part_or_none(kind: str) -> st.SearchStrategy[str | None]:
    return st.none() | st.sampled_from(part_names(kind))


def load(folder: Path, document: dict[str, object]) -> Cluster:
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump({"exactmap-cluster": 1, **document}, sort_keys=False), encoding="utf-8")
    return load_cluster(path)


@settings(max_examples=40)
@given(
    NAMES,
    part_or_none("gpus"),
    part_or_none("hosts"),
    part_or_none("racks"),
    st.none() | st.integers(1, 5000),
    st.lists(st.sampled_from(part_names("switches")), max_size=3),
)
def test_what_is_written_holds_and_all_else_is_the_part_s(
    base: str,
    gpu: str | None,
    host: str | None,
    rack: str | None,
    watts: int | None,
    switches: list[str],
) -> None:
    """A cluster written out whole, with sections of it replaced by parts and a number beside one."""
    whole = load_cluster(base)
    document = cluster_document(whole)
    if gpu is not None:
        document["gpu"] = {"part": gpu} | ({} if watts is None else {"power": f"{watts} W"})
    if host is not None:
        document["host"] = {"part": host}
    if rack is not None:
        document["rack"] = {"part": rack}
    fabric = document["fabric"]
    assert isinstance(fabric, dict)
    if switches:
        document["fabric"] = {**fabric, "switches": [{"part": name} for name in switches]}

    with TemporaryDirectory() as name:
        folder = Path(name)
        made = load(folder, document)
        again = load(folder, cluster_document(made))

    assert again == made
    assert (made.scale_up, made.scale_out) == (whole.scale_up, whole.scale_out)
    assert len(made.fabric.switches) == (len(switches) or len(whole.fabric.switches))
    if gpu is None:
        assert made.gpu == whole.gpu
    else:
        assert made.gpu.name == gpu
        assert watts in {None, made.gpu.power_w}
        assert ("gpu.power" in made.facts) == (watts is None)
        assert made.facts["gpu.memory"].source
    assert (made.host == whole.host) or host is not None
    assert (made.rack == whole.rack) or rack is not None
