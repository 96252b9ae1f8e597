import json
from dataclasses import replace
from pathlib import Path

import pytest

from tectum.bench import measure
from tectum.bench.results import Agreement, Group, Rates, Row, Throughput, Timing
from tectum.cli import bench as bench_command


def row(name, seconds, speed_up):
    return Row(
        name,
        first_seconds=2.0,
        latency=Timing.of([seconds, 2 * seconds, 3 * seconds]),
        outside=0.1,
        tiles=1,
        bands=False,
        peak_bytes=900_000_000,
        throughput=Throughput(8, 3.25),
        speed_up=speed_up,
        limit_share=0.125,
        agreement=Agreement(0.5, 0.25, 0.9995),
    )


GROUP = Group(
    model="mafs_r18",
    weights="random",
    width=640,
    height=480,
    pair="00009D",
    in_turn=True,
    reference="published",
    gigaflops={"published": 38.0, "module": 30.0, "folded": 17.9},
    rates=Rates(2, 71.25, 60.0),
    least_seconds=0.251,
    rows=(row("published", 0.4, 1.0), row("torch", 0.8, 0.5)),
)
FAILED = replace(GROUP, rows=(*GROUP.rows, Row("compile", "there is no compiler")))
SKIPPED = replace(GROUP, reference=None, rows=(Row("published", "out of memory", True), GROUP.rows[1]))
TILED = replace(GROUP, in_turn=False, rows=(replace(GROUP.rows[1], tiles=4, limit_share=None),))


@pytest.fixture
def bench(run_tectum, monkeypatch):
    """Run the command with groups that are given instead of measured; the result has what was asked for."""

    def run(groups, *arguments):
        asked = []

        def benchmark(*given):
            asked.extend(given)
            yield from groups

        monkeypatch.setattr(bench_command, "benchmark", benchmark)
        result = run_tectum("bench", *arguments)
        result.asked = asked
        return result

    return run


def test_defaults(bench):
    result = bench([GROUP], "--backend", "torch")
    assert result.exit_code == 0, result.output
    models, sizes, plan, pairs, _ = result.asked
    assert (models, sizes, list(pairs)) == (["virmfs_b0_msrs"], [(480, 640)], [])
    assert plan == measure.Plan(("published", "module", "torch"), 20, 2, 8)


def test_options(bench):
    result = bench(
        [GROUP], "--model", "a", "--model", "b", "--size", "320x240", "--size", "96X64", "--backend", "torch",
        "--no-published", "--repeats", 4, "--warm-up", 1, "--folder", 0,
    )  # fmt: skip
    models, sizes, plan, *_ = result.asked
    assert (models, sizes) == (["a", "b"], [(240, 320), (64, 96)])
    assert plan == measure.Plan(("module", "torch"), 4, 1, 0)


def test_precisions(bench):
    pytest.importorskip("nncf")
    result = bench([GROUP], "--backend", "openvino", "--precision", "int8", "--precision", "bfloat16")
    assert result.asked[2].rows == ("published", "module", "openvino", "openvino bfloat16", "openvino int8")


def test_given_pairs(bench, tmp_path, write_pair):
    for name in ("a.png", "b.png"):
        write_pair(tmp_path, name)
    result = bench([GROUP], "--backend", "torch", "--visible", tmp_path / "vi", "--infrared", tmp_path / "ir")
    assert [pair.name for pair in result.asked[3]] == ["a", "b"]


def test_table(bench):
    text = bench([GROUP], "--backend", "torch").stdout
    assert "mafs_r18, random weights, 640x480" in text
    (line,) = (line for line in text.splitlines() if "torch" in line)
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells == ["torch", "1600", "1200-2000", "800", "0.50", "12", "10", "3.25", "900", "0.500", "0.250", "99.95"]
    for note in (
        "rounds: 3, rows in turn",
        "times that of published",
        "folded 17.90",
        "matrix products 71.2, convolutions 60.0",
        "251 ms",
    ):
        assert note in text


def test_a_failed_row(bench):
    result = bench([FAILED], "--backend", "torch")
    assert result.exit_code == 1
    assert "failed" in result.stdout
    assert "there is no compiler" in result.stderr


def test_a_skipped_row(bench):
    result = bench([SKIPPED], "--backend", "torch")
    assert result.exit_code == 0, result.output
    assert "no memory" in result.stdout


def test_tiles_are_told(bench):
    text = bench([TILED], "--backend", "torch").stdout
    assert "torch in 4 tiles" in text
    assert "one after another" in text


def test_json(bench, tmp_path):
    file = tmp_path / "new" / "b.json"
    bench([GROUP, FAILED], "--backend", "torch", "--json", file)
    text = file.read_text()
    content = json.loads(text)
    assert list(content) == ["format", "environment", "plan", "groups"]
    assert content["format"] == 1
    assert content["plan"]["repeats"] == 20
    first, second = content["groups"]
    assert first["rows"][1]["latency"]["samples"] == [0.8, 1.6, pytest.approx(2.4)]
    assert first["rows"][1]["agreement"] == {"fused_max": 0.5, "fused_p999": 0.25, "labels": 0.9995}
    assert second["rows"][2]["reason"] == "there is no compiler"
    assert str(Path.home()) not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "640"), "--size cannot be '640'; give WIDTHxHEIGHT"),
        (("--size", "16x64"), "32 or more"),
        (("--backend", "gpu"), "no backend 'gpu' to measure; choose from torch, compile, onnx, openvino"),
        (("--precision", "float32"), "no row of precision 'float32'; choose from bfloat16, int8"),
        (("--visible", "a.png"), "need both --visible and --infrared"),
        (("--visible", "a", "--infrared", "b", "--size", "64x64"), "at their own size"),
    ],
)
def test_wrong_usage(arguments, message, run_tectum):
    result = run_tectum("bench", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_pairs_that_do_not_match(run_tectum, tmp_path, write_pair):
    _, infrared = write_pair(tmp_path, "a.png")
    infrared.rename(infrared.with_name("b.png"))
    result = run_tectum("bench", "--visible", tmp_path / "vi", "--infrared", tmp_path / "ir")
    assert result.exit_code == 1
    assert "have no pair" in result.stderr
