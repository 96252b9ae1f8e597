import importlib.util
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tectum.bench import measure, subjects
from tectum.bench.environment import environment
from tectum.bench.measure import Plan, benchmark, choose_rows
from tectum.bench.process import Remote, RemoteError, describe_failure
from tectum.bench.results import Agreement, Rates, Throughput, Timing, limit_share
from tectum.bench.subjects import Model, Run
from tectum.engines.openvino import has_bfloat16
from tectum.errors import ConfigError, InputError, MissingExtraError
from tectum.predict import Result
from tectum.scenes import render_scene, write_scenes

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells and limits it")


class Local:
    """A `Remote` in this process."""

    def __init__(self, make, *arguments):
        self.make, self.arguments, self.served = make, arguments, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.served = None

    def call(self, method, *arguments):
        try:
            if self.served is None:
                self.served = self.make(*self.arguments)
            return getattr(self.served, method)(*arguments)
        except Exception as error:
            raise describe_failure(error) from error


@pytest.fixture
def local(monkeypatch):
    monkeypatch.setattr(measure, "Remote", Local)
    monkeypatch.setattr(subjects, "_limit_memory", lambda: None)
    monkeypatch.setattr(measure, "_PAUSE", 0)


def result(level, label):
    labels, luminance = np.full((4, 5), label, np.uint8), np.full((4, 5), level, "f4")
    return Result("a", np.zeros((4, 5, 3), np.uint8), labels, np.ones((4, 5), np.float32), luminance)


@pytest.fixture
def scripted(local, monkeypatch):
    """Benchmarks whose rows answer from a script: {row: seconds, or the error of its runs}. Records who is asked."""
    calls = []
    script = {"published": 4.0, "module": 2.0, "torch": 0.5, "openvino": 8.0}

    class Subject:
        def __init__(self, row, source, pair):
            self.row = row

        def run(self):
            calls.append(self.row)
            answer = script[self.row]
            if isinstance(answer, Exception):
                raise answer
            return Run(answer, 0.75 * answer, 2 if self.row == "openvino" else 1, False)

        def result(self):
            return result(*((0.5, 1) if self.row == "published" else (0.5 + 2 / 255, 2)))

        def peak(self):
            return 1000

        def folder(self, pairs, count):
            return Throughput(count, 3.0)

    class Preparation:
        def __init__(self, folder):
            pass

        def describe(self, model):
            return Model(model, model, "saved")

        def gigaflops(self, source, size):
            return {"published": 40.0, "module": 20.0, "folded": 10.0}

        def export(self, source, row, calibration):
            return "file"

    class Limits:
        rounds = iter([40.0, 10.0, *[40.0] * 20])

        def run(self):
            calls.append("limits")
            return Rates(2, 20.0, next(self.rounds))

    monkeypatch.setattr(measure, "Subject", Subject)
    monkeypatch.setattr(measure, "Preparation", Preparation)
    monkeypatch.setattr(measure, "Limits", Limits)

    def run(rows, **plan):
        (group,) = benchmark(["m"], [(32, 64)], Plan(tuple(rows), **plan), [], lambda text: None)
        return group

    return run, script, calls


def test_timing():
    timing = Timing.of([0.5, 0.1, 0.2, 0.4, 0.3])
    assert timing == Timing(0.3, 0.2, 0.4, 0.1, (0.5, 0.1, 0.2, 0.4, 0.3))
    assert Timing.of([0.7]) == Timing(0.7, 0.7, 0.7, 0.7, (0.7,))


def test_agreement():
    reference, other = result(0.5, 1), result(0.5, 1)
    other.luminance[0, 0], other.labels[0, :5] = 0.5 - 51 / 255, 3
    agreement = Agreement.of(other, reference)
    assert agreement.fused_max == pytest.approx(51, abs=1e-3)
    assert 49 < agreement.fused_p999 < 51
    assert agreement.labels == 0.75


def test_share_of_the_limit():
    assert limit_share(0.2, 0.8, 1) == pytest.approx(0.25)
    assert limit_share(0.2, 0.8, 4) is None


def test_arithmetic_of_a_group(scripted):
    run, _, _ = scripted
    group = run(["published", "module", "torch", "openvino"], repeats=3, folder=8)
    assert (group.model, group.width, group.height, group.reference) == ("m", 64, 32, "published")
    assert group.in_turn
    assert group.rates == Rates(2, 20, 40)
    assert group.least_seconds == 0.25
    published, module, torch, openvino = group.rows
    assert [row.speed_up for row in group.rows] == [1, 2, 8, 0.5]
    assert [row.limit_share for row in (published, module, torch)] == [0.0625, 0.125, 0.5]
    assert openvino.limit_share is None
    assert openvino.tiles == 2
    assert published.agreement == Agreement(0, 0, 1)
    assert torch.agreement.fused_max == pytest.approx(2, abs=1e-4)
    assert torch.agreement.labels == 0
    assert torch.outside == 0.25
    assert torch.peak_bytes == 1000
    # At 4 seconds a pair, 5 pairs fit into the time of folder mode; at 8 seconds there are still 2.
    assert [row.throughput.pairs for row in group.rows] == [5, 8, 8, 2]


def test_rows_are_asked_in_turn_after_the_warm_up(scripted):
    run, _, calls = scripted
    run(["module", "torch"], repeats=2, warm_up=2, folder=0)
    assert calls == ["module", "module", "torch", "torch"] + ["limits", "module", "torch"] * 2


@pytest.mark.parametrize(("seconds", "rounds"), [(0.1, 9), (7.0, 5), (100.0, 3)])
def test_slow_rows_get_fewer_rounds_but_three(seconds, rounds, scripted):
    run, script, _ = scripted
    script["torch"] = seconds
    group = run(["module", "torch"], repeats=9, folder=0)
    assert [len(row.latency.samples) for row in group.rows] == [rounds, rounds]


def test_rows_go_one_after_another_when_memory_is_short(scripted, monkeypatch):
    run, _, calls = scripted
    monkeypatch.setattr(measure, "free_memory", lambda: 999)
    group = run(["published", "module", "torch"], repeats=2, warm_up=1, folder=0)
    assert not group.in_turn
    # The first attempt ends after its first row.
    alone = [call for row in ("published", "module", "torch") for call in (row, "limits", row, "limits", row)]
    assert calls == ["published", *alone]
    assert [row.speed_up for row in group.rows] == [1, 2, 8]


def test_a_row_that_fails_leaves_the_rest(scripted):
    run, script, _ = scripted
    script["torch"] = ConfigError("it does not work here")
    group = run(["published", "torch", "openvino"], repeats=1, folder=0)
    assert [row.reason for row in group.rows] == [None, "it does not work here", None]
    assert [row.failed for row in group.rows] == [False, True, False]
    assert group.rows[1].latency is None
    assert group.rows[2].speed_up == 0.5


def test_published_without_enough_memory_is_skipped(scripted):
    run, script, _ = scripted
    script["published"] = InputError("out of memory on cpu")
    group = run(["published", "module", "torch"], repeats=1, folder=0)
    assert group.rows[0].skipped
    assert not group.rows[0].failed
    assert group.reference == "module"
    assert group.rows[2].speed_up == 4


def test_without_a_reference_there_are_no_ratios(scripted):
    run, script, _ = scripted
    script["module"] = MemoryError()
    group = run(["module", "torch"], repeats=1, folder=0)
    assert group.reference is None
    assert group.rows[1].speed_up is None
    assert group.rows[1].latency.median == 0.5


def test_choice_of_rows(monkeypatch):
    present = {"onnxruntime", "onnxscript"}
    monkeypatch.setattr(measure, "find_spec", lambda package: package if package in present else None)
    assert choose_rows([], [], with_published=True) == ("published", "module", "torch", "onnx")
    assert choose_rows(["onnx", "compile"], [], with_published=False) == ("module", "compile", "onnx")
    with pytest.raises(MissingExtraError, match=r"backend openvino needs .* pip install 'tectum\[openvino\]'"):
        choose_rows(["openvino"], [], with_published=True)
    with pytest.raises(ConfigError, match="no backend 'gpu' to measure; choose from torch, compile, onnx, openvino"):
        choose_rows(["gpu"], [], with_published=True)
    with pytest.raises(ConfigError, match="no row of precision 'float32'; choose from bfloat16, int8"):
        choose_rows([], ["float32"], with_published=True)
    present.add("openvino")
    rows = choose_rows(["torch"], ["bfloat16"], with_published=False)
    assert rows == ("module", "torch", "openvino bfloat16")
    with pytest.raises(MissingExtraError, match=r"precision int8 needs .* pip install 'tectum\[openvino\]'"):
        choose_rows([], ["bfloat16", "int8"], with_published=True)
    present.add("nncf")
    rows = choose_rows(["openvino"], ["int8", "bfloat16"], with_published=False)
    assert rows == ("module", "openvino", "openvino bfloat16", "openvino int8")


@pytest.mark.slow
def test_the_networks(local):
    plan = Plan(("published", "module", "torch"), repeats=2, warm_up=1, folder=2)
    (group,) = benchmark(["virmfs_b0_msrs"], [(64, 96)], plan, [], lambda text: None)
    assert [row.reason for row in group.rows] == [None, None, None]
    assert (group.weights, group.reference) == ("shipped", "published")
    assert group.gigaflops["published"] > group.gigaflops["module"] > group.gigaflops["folded"] > 0
    for row in group.rows:
        assert row.agreement.fused_max < 0.05
        assert row.agreement.labels > 0.999
        assert 0 < row.outside < 1
        assert (row.tiles, row.bands) == (1, False)
        assert row.throughput.pairs == 2
        assert row.limit_share > 0
        assert len(row.latency.samples) == 2


@pytest.mark.slow
def test_given_pairs_set_the_size(local, tmp_path):
    pairs = write_scenes(tmp_path, 2, size=(40, 72))
    (group,) = benchmark(["virmfs_b0"], [(64, 64)], Plan(("module",), 1, 1, 0), pairs, lambda text: None)
    assert (group.width, group.height, group.pair) == (72, 40, pairs[0].name)
    assert group.weights == "random"


def test_an_unknown_model_is_told_before_anything_is_measured(local):
    with pytest.raises(ConfigError, match="'virmfs_b9'"):
        next(benchmark(["virmfs_b0_msrs", "virmfs_b9"], [(64, 64)], Plan(("module",)), [], pytest.fail))


@pytest.mark.slow
@pytest.mark.parametrize("row", ["onnx", "openvino", "openvino bfloat16", "openvino int8"])
def test_exported_networks(row, local):
    pytest.importorskip(row.split()[0].replace("onnx", "onnxruntime"))
    if row == subjects.BFLOAT16 and not has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    plan = Plan(("module", row), repeats=1, warm_up=1, folder=0)
    (group,) = benchmark(["virmfs_b0_msrs"], [(64, 64)], plan, [], lambda text: None)
    assert group.rows[1].reason is None
    assert group.rows[1].agreement.labels > (0.9 if " " in row else 0.999)


def test_a_row_of_bfloat16_is_not_measured_in_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(subjects, "has_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match="no instructions for bfloat16"):
        subjects.Preparation(tmp_path).export("virmfs_b0_msrs", subjects.BFLOAT16, [])


@pytest.mark.slow
def test_processes_of_their_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    plan = Plan(("published", "torch"), repeats=2, warm_up=1, folder=2)
    (group,) = benchmark(["virmfs_b0_msrs"], [(64, 64)], plan, [], lambda text: None)
    assert [row.reason for row in group.rows] == [None, None]
    assert group.rates.threads == 1
    assert group.rows[1].agreement.labels > 0.999
    assert group.rows[1].throughput.pairs == 2
    if sys.platform == "linux":
        assert 1e8 < group.rows[1].peak_bytes < 2e9


def test_remote_objects():
    with Remote(list, "ab") as remote:
        assert remote.call("append", "c") is None
        assert remote.call("index", "c") == 2
        with pytest.raises(RemoteError, match="ValueError") as caught:
            remote.call("index", "d")
        assert (caught.value.memory, caught.value.usage) == (False, False)
        assert remote.call("index", "a") == 0


def test_remote_errors_of_tectum():
    with Remote(render_scene, -1) as remote, pytest.raises(RemoteError, match="seed") as caught:
        remote.call("anything")
    assert caught.value.usage
    assert describe_failure(InputError("out of memory on cpu")).memory
    assert describe_failure(MemoryError()).memory
    assert not describe_failure(InputError("an image is damaged")).memory


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
def test_a_process_that_is_killed():
    with Remote(os.getpid) as remote:
        os.kill(remote.call("__int__"), signal.SIGKILL)
        with pytest.raises(RemoteError, match="ended by the system, most likely for lack of memory") as caught:
            remote.call("__int__")
    assert caught.value.memory


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


@LINUX
def test_what_does_not_fit_is_refused():
    done = run_python(
        "from tectum.bench import subjects\n"
        "subjects.free_memory = lambda: 100_000_000\n"
        "subjects._limit_memory()\n"
        "bytearray(10_000_000)\n"
        "try: bytearray(200_000_000)\n"
        "except MemoryError: print('refused')\n"
    )
    assert done.stdout == "refused\n", done.stderr


@LINUX
def test_the_peak_is_that_of_the_process_alone():
    held = b"x" * 300_000_000
    done = run_python("from tectum.bench.process import peak_memory; print(peak_memory())")
    assert int(done.stdout) < 200_000_000, done.stderr
    del held


def test_only_rows_in_torch_import_torch():
    done = run_python(
        "import sys, tectum.bench.measure, tectum.bench.environment, tectum.cli.bench\nprint('torch' in sys.modules)"
    )
    assert done.stdout == "False\n", done.stderr


def test_environment():
    found = environment()
    assert set(found) == {
        "date", "tectum", "commit", "python", "packages", "system", "processor", "logical_processors", "threads",
        "precision",
    }  # fmt: skip
    assert found["packages"]["torch"]
    assert found["threads"] >= 1


def test_plot_of_growth(scripted, tmp_path):
    pytest.importorskip("matplotlib")
    file = Path(__file__).parents[2] / "benchmarks" / "growth.py"
    spec = importlib.util.spec_from_file_location("growth", file)
    growth = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(growth)
    _, script, _ = scripted
    plan = Plan(("published", "module", "torch", "openvino"), 1, 1, 0)
    sizes = [(32, 64), (64, 64)]
    groups = [asdict(group) for group in benchmark(["m"], sizes, plan, [], lambda text: None)]
    script["published"] = MemoryError()
    groups += [asdict(group) for group in benchmark(["m"], [(96, 96)], plan, [], lambda text: None)]
    growth.draw({"plan": {"rows": plan.rows}, "groups": groups}, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000
