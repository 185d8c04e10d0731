"""A user's own timings of products: read strictly, laid over the measured curves, felt by every stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.efficiency import efficiency_of, find_efficiency
from exactmap.sim.cost.formats import find_formats
from exactmap.sim.cost.stages import price_stages
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.sim.workload.model import StageShape
from exactmap.sim.workload.presets import find_preset
from exactmap.topology.gemm_table import read_gemm_table
from exactmap.topology.hardware import GPU, Cluster
from exactmap.topology.mapping import Mesh

HEADER = "dtype,m,n,k,us\n"
SCENARIO = """exactmap: 1
cluster: {catalog: h100-8, gpu: {gemm: my-gemm.csv}}
model: gpt2
training: {sequence: 1024, batch: 64 sequences}
"""
H100 = load_cluster("h100-8")


def micros(gpu: GPU, m: int, n: int, k: int, *, slower: float = 1.0) -> float:
    rate = efficiency_of(gpu).gemm_flop_per_s("bf16", gpu.peak("bf16"), m, n, k)
    return 2e6 * m * n * k / rate * slower


def timings(*shapes: tuple[int, int, int], slower: float) -> str:
    rows = [f"bf16,{m},{n},{k},{micros(H100.gpu, m, n, k, slower=slower)!r}\n" for m, n, k in shapes]
    return HEADER + "".join(rows)


def with_table(folder: Path, text: str) -> Cluster:
    (folder / "my-gemm.csv").write_text(text, encoding="utf-8")
    (folder / "s.yaml").write_text(SCENARIO, encoding="utf-8")
    return load_scenario(folder / "s.yaml").cluster


def rate(cluster: Cluster, m: int, n: int, k: int) -> float:
    gpu = cluster.gpu
    return efficiency_of(gpu).gemm_flop_per_s("bf16", gpu.peak("bf16"), m, n, k)


def test_a_slower_table_makes_slower_stages(tmp_path: Path) -> None:
    """Products twice as slow: a stage whose time is nearly all products takes nearly twice as long."""
    model = find_preset("gpt3-175b")

    def stage_ns(cluster: Cluster) -> int:
        return sum(
            price_stages(model, [StageShape(4)], 1, 2048, Mesh(tp=8), cluster, find_formats("bf16")).values()
        )

    shapes = ((1024, 2048, 4096), (2048, 12288, 4608), (4096, 4096, 4096))
    slow = with_table(tmp_path, timings(*shapes, slower=2.0))
    same = with_table(tmp_path, timings(*shapes, slower=1.0))

    assert stage_ns(same) == pytest.approx(stage_ns(H100), rel=1e-9)
    assert 1.4 * stage_ns(H100) < stage_ns(slow) < 2.0 * stage_ns(H100)


def test_timings_are_met_and_the_curve_keeps_its_shape_between_them(tmp_path: Path) -> None:
    """Two timings, one true and one 40 % slower: exact at both, in between nearby, all slower far away."""
    cluster = with_table(
        tmp_path,
        timings((1024, 1024, 1024), slower=1.0)
        + timings((8192, 8192, 8192), slower=1.4).removeprefix(HEADER),
    )

    def slower(m: int, n: int, k: int) -> float:
        return rate(H100, m, n, k) / rate(cluster, m, n, k)

    assert slower(1024, 1024, 1024) == pytest.approx(1.0)
    assert slower(8192, 8192, 8192) == pytest.approx(1.4)
    assert 1.0 < slower(1100, 1100, 1100) < 1.01
    assert 1.39 < slower(8000, 8192, 8192) <= 1.4
    assert 1.0 < slower(2896, 2896, 2896) < 1.4
    assert 1.1 < slower(4096, 4, 10**6) < 1.3


def test_a_whole_grid_stands_in_place_of_the_curve(tmp_path: Path) -> None:
    """Rates of 100 to 800 TFLOP/s that the curve does not have, and between them logarithmic means."""
    rows = [
        f"bf16,{m},{n},{k},{2 * m * n * k / (100 * (m * n * k / 512**3) ** (1 / 3) * 1e6)!r}\n"
        for m in (512, 4096)
        for n in (512, 4096)
        for k in (512, 4096)
    ]
    cluster = with_table(tmp_path, HEADER + "".join(rows))

    assert rate(cluster, 512, 512, 512) == pytest.approx(100e12)
    assert rate(cluster, 4096, 4096, 4096) == pytest.approx(800e12)
    assert rate(cluster, 1024, 1024, 1024) == pytest.approx(200e12)
    assert rate(cluster, 10**5, 10**5, 10**5) == pytest.approx(800e12)
    fp8 = efficiency_of(cluster.gpu).gemm_flop_per_s("fp8", 2e15, 4096, 4096, 4096)
    assert fp8 == find_efficiency("H100").gemm_flop_per_s("fp8", 2e15, 4096, 4096, 4096)


def test_a_gpu_without_curves_takes_its_share_and_its_user_s_timings(tmp_path: Path) -> None:
    """V100 has no measured products here: 0.72 of peak, until someone measures one."""
    (tmp_path / "v.csv").write_text(f"{HEADER}bf16,4096,4096,4096,1600\n", encoding="utf-8")
    v100 = load_cluster("v100-8")
    own = replace(v100, gpu=replace(v100.gpu, gemm=read_gemm_table(tmp_path / "v.csv")))

    assert rate(v100, 4096, 4096, 4096) == pytest.approx(0.72 * 125e12)
    assert rate(own, 4096, 4096, 4096) == pytest.approx(2 * 4096**3 / 1600e-6)
    assert efficiency_of(v100.gpu).attention_flop_per_s(1e14, 32, 2048, backward=False) == pytest.approx(
        0.35e14
    )
    h800 = load_cluster("h800-8")
    assert efficiency_of(h800.gpu) == find_efficiency("H100")


def test_the_table_is_found_beside_the_file_that_names_it(tmp_path: Path) -> None:
    """A cluster file's beside that file, a scenario's beside the scenario; written out, it is named."""
    folder = tmp_path / "clusters"
    folder.mkdir()
    (folder / "own.csv").write_text(f"{HEADER}bf16,4096,4096,4096,300\n", encoding="utf-8")
    document = "exactmap-cluster: 1\nname: mine\nnum_gpus: 8\ngpus_per_host: 8\nused_per_domain: 8\n"
    document += "gpu: {part: H100, gemm: own.csv}\nscale_up: {part: NVLink-4, domain_size: 8}\n"
    (folder / "my.yaml").write_text(document + "scale_out: {part: ConnectX-7}\n", encoding="utf-8")
    path = tmp_path / "s.yaml"
    path.write_text(SCENARIO.replace("{catalog: h100-8, gpu: {gemm: my-gemm.csv}}", "clusters/my.yaml"))

    scenario = load_scenario(path)
    (folder / "effective.yaml").write_text(scenario.effective(), encoding="utf-8")

    assert scenario.cluster.gpu.gemm == read_gemm_table(folder / "own.csv")
    assert f"gemm: {folder / 'own.csv'}" in scenario.effective()
    assert load_scenario(folder / "effective.yaml").cluster == scenario.cluster
    (tmp_path / "other.csv").write_text(f"{HEADER}bf16,4096,4096,4096,400\n", encoding="utf-8")
    other = load_scenario(path, ["cluster.gpu.gemm=other.csv"])
    assert rate(other.cluster, 4096, 4096, 4096) < rate(scenario.cluster, 4096, 4096, 4096)


def test_rows_are_read_with_comments_spaces_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf# mine\n\ndtype, m, n, k, us\r\nbf16, 128, 256, 512, 1e1\r\n\n# end\n")
    (row,) = read_gemm_table(path).rows

    assert row == ("bf16", 128, 256, 512, 10.0, 4)
    assert row.flop_per_s == pytest.approx(2 * 128 * 256 * 512 / 10e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"my-gemm\.csv:1: not a table of matrix products: got nothing"),
        ("m,n,k,us\n1,2,3,4\n", r"my-gemm\.csv:1: not a table .* expected the columns dtype,m,n,k,us"),
        (HEADER, r"my-gemm\.csv:1: the table has no rows"),
        (f"{HEADER}bf16,1024,1024\n", r"my-gemm\.csv:2: a row of another length: got 3 cells, expected 5"),
        (f"{HEADER}fp16,8,8,8,9\n", r"my-gemm\.csv:2: dtype: unknown number format: got 'fp16'"),
        (f"{HEADER}bf16,8,0,8,9\n", r"my-gemm\.csv:2: n: not a size: got '0'"),
        (f"{HEADER}bf16,8,8,2.5,9\n", r"my-gemm\.csv:2: k: not a size: got '2.5'"),
        (f"{HEADER}bf16,-8,8,8,9\n", r"my-gemm\.csv:2: m: not a size"),
        (f"{HEADER}bf16,8,8,8,0\n", r"my-gemm\.csv:2: us: not a time: got '0'"),
        (f"{HEADER}bf16,8,8,8,nan\n", r"my-gemm\.csv:2: us: not a time"),
        (
            f"{HEADER}bf16,8,8,8,9\nbf16,8,8,8,9.5\n",
            r"my-gemm\.csv:3: a product stands twice: got bf16 8 x 8 x 8, also in line 2",
        ),
        (f"{HEADER}bf16,8192,8192,8192,1.1\n", r"my-gemm\.csv:2: a product that H100 cannot have computed"),
        (f"{HEADER}fp4,8,8,8,9\n", r"my-gemm\.csv:2: a product that H100 cannot .* expected no such format"),
    ],
)
def test_bad_tables_are_refused_with_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=message):
        with_table(tmp_path, text)


def test_all_bad_rows_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        with_table(tmp_path, f"{HEADER}bf16,8,8,8\nbf16,8,8,8,9\nbf16,x,8,8,9\n")

    assert "my-gemm.csv:2: a row" in str(caught.value)
    assert "my-gemm.csv:4: m: not a size: got 'x'" in str(caught.value)


def test_a_table_that_is_not_there_is_reported_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SCENARIO, encoding="utf-8")

    with pytest.raises(
        InvalidInputError, match=r"s\.yaml:2: cluster\.gpu\.gemm: cannot read the table"
    ) as caught:
        load_scenario(tmp_path / "s.yaml")

    assert "my-gemm.csv: No such file" in str(caught.value)
