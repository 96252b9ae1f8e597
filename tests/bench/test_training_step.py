import importlib.util
import re
from pathlib import Path

import pytest
import torch

import tectum
from tectum.bench.published import gigaflops, published_for_training
from tectum.recipes.reading import read_config
from tectum.recipes.virmfs import VirmfsConfig

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training_step.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("training_step", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def network(wiring):
    torch.manual_seed(0)
    model = tectum.create_model("virmfs_b0", wiring=wiring)
    with torch.no_grad():  # away from values, zeros and ones, at which a wrong gradient could be right
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or name.endswith("scale.weight"):
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.train()


@pytest.mark.parametrize("wiring", ["asymmetric", "symmetric"])
def test_gradients_are_those_of_the_published_form(benchmark, wiring):
    config = read_config(VirmfsConfig, benchmark.CONFIG)
    model = network(wiring)
    differences = benchmark.gradient_differences(model, benchmark.rendered_batch(2, 64), config)
    assert differences["tectum, float64"][0] < 1e-9  # 1e-4 is asked for; measured: 1e-12
    # Rounding alone: the published form in float32 is as far away.
    assert differences["tectum, float32"][0] < 10 * differences["published, float32"][0]


def test_gradients_of_another_function_differ(benchmark):
    config, batch = read_config(VirmfsConfig, benchmark.CONFIG), benchmark.rendered_batch(2, 64)
    model = network("asymmetric")
    names = [name for name, _ in model.named_parameters()]
    expected = benchmark.gradients(model, batch, config, torch.float64)
    with torch.no_grad():
        model.fusions[0].base_scale.weight.mul_(1.001)
    found = benchmark.gradients(model, batch, config, torch.float64)
    assert benchmark.largest_difference(found, expected, names)[0] > benchmark.TOLERANCE


@pytest.mark.parametrize("wiring", ["asymmetric", "symmetric"])
def test_parameters_of_the_published_form_are_in_the_order_of_the_network(wiring):
    model = network(wiring)
    reference = published_for_training(model)
    assert reference.training
    for (name, parameter), (other_name, other) in zip(
        model.named_parameters(), reference.named_parameters(), strict=True
    ):
        assert re.sub(r"\.layers\b", "", other_name).replace(".level.", ".levels.0.") == name
        assert other.requires_grad
        assert other is not parameter
        assert torch.equal(other, parameter)


def test_the_published_form_takes_no_shortcut_in_training():
    model = network("asymmetric")
    assert gigaflops(published_for_training(model), 480, 640) == pytest.approx(38.0, abs=0.3)
    assert gigaflops(model, 480, 640) < 19


def test_steps_are_timed_in_turn(benchmark):
    calls = []
    steps = {"one": lambda: calls.append("one"), "other": lambda: calls.append("other")}
    times = benchmark.time_in_turn(steps, rounds=3)
    assert calls == ["one", "one", "other", "other"] + ["one", "other"] * 3
    assert times["one"]["lower quartile"] <= times["one"]["median"] <= times["one"]["upper quartile"]


def test_a_step_trains(benchmark):
    config = read_config(VirmfsConfig, benchmark.CONFIG, ["run.ema=0.5"])
    model = network("asymmetric")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    benchmark.training_step(model, benchmark.rendered_batch(2, 64), config, "bf16")()
    assert not any(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
