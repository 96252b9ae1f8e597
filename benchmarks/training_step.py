"""A training step of ViR-MFS b0 against the same step of the network as published, in one run.

    python benchmarks/training_step.py [--precision float32 bf16] [--rounds 10] [--json FILE]

Contract: the step is the full step of the config `virmfs_b0_msrs` on CPUs (batch 4, crops of 256x256): forward pass,
losses, backward pass, gradient clip, optimiser, moving average of the weights. Both networks start from the same random
weights, with stochastic depth 0.1 and dropout 0.1, and see the same rendered scenes. Only the network differs: losses
and optimiser are tectum's on both sides. Threads as torch chooses them; after two steps of warm-up each, steps of the
two alternate; reported are the median and the spread of wall-clock time and the median of CPU time per step.

The gradients must agree to 1e-4 relative for every parameter, or the benchmark fails: ‖g - g_published‖ /
‖g_published‖, in float64, without dropout and stochastic depth, whose random numbers differ. Also reported is the same
for either form in float32 against the published one in float64: what rounding does to each. Parameters whose gradient
is zero by construction (biases before a batch norm) are left out.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

import tectum
from tectum.bench.environment import environment
from tectum.bench.published import published_for_training
from tectum.data.transforms import Sample
from tectum.files import write_text
from tectum.losses.segmentation import cross_entropy
from tectum.models.base import Output
from tectum.models.virmfs import ViRMFS
from tectum.recipes.config import Precision
from tectum.recipes.loop import differentiate
from tectum.recipes.optimisation import clip_and_step, make_average, make_optimiser
from tectum.recipes.reading import CONFIGS, read_config
from tectum.recipes.virmfs import Objective, VirmfsConfig, fusion_loss
from tectum.scenes import render_scene

CONFIG = CONFIGS / "virmfs_b0_msrs.yaml"
TOLERANCE = 1e-4
ZERO = 1e-9
"""Share of the norm of the whole gradient, in float64, below which that of a parameter is zero but for rounding."""


class Published(nn.Module):
    """The published form, returning what the recipe expects. Its parameters are in the order of the network's own."""

    def __init__(self, model: ViRMFS) -> None:
        super().__init__()
        self.network = published_for_training(model)

    def forward(self, visible: Tensor, infrared: Tensor) -> Output:
        fused, logits = self.network(visible, infrared)
        return Output(fused, logits, {"weights": fused.new_empty(0)})  # at which only `loss.picture` looks


def rendered_batch(batch: int, side: int) -> Sample:
    """Rendered scenes of side x side pixels."""
    pairs = [render_scene(seed, (side, side)) for seed in range(batch)]
    return Sample.of_clean(
        torch.stack([torch.from_numpy(pair.visible).permute(2, 0, 1) for pair in pairs]).contiguous(),
        torch.stack([torch.from_numpy(pair.infrared)[None] for pair in pairs]),
        torch.stack([torch.from_numpy(pair.label).long() for pair in pairs]),
    )


def gradients(model: nn.Module, batch: Sample, config: VirmfsConfig, dtype: torch.dtype) -> list[Tensor]:
    """Gradients of the full step's loss for all parameters, without dropout and stochastic depth; `model` stays."""
    model = copy.deepcopy(model).to(dtype)
    for module in model.modules():
        if isinstance(module, nn.Dropout2d | StochasticDepth):
            module.p = 0.0
    batch = Sample.of_clean(batch.visible.to(dtype), batch.infrared.to(dtype), batch.labels)
    output = model(batch.visible, batch.infrared)
    terms = fusion_loss(output.fused, output.aux["weights"], batch, config.loss)
    loss = sum(terms.values()) + config.loss.segmentation * cross_entropy(output.logits, batch.labels)
    return [gradient.double() for gradient in torch.autograd.grad(loss, list(model.parameters()))]


def largest_difference(found: Sequence[Tensor], expected: Sequence[Tensor], names: Sequence[str]) -> tuple[float, str]:
    """The largest relative difference of a parameter's gradients, and that parameter."""
    whole = torch.stack([gradient.norm() for gradient in expected]).norm()
    return max(
        (((one - other).norm() / other.norm()).item(), name)
        for one, other, name in zip(found, expected, names, strict=True)
        if other.norm() > ZERO * whole
    )


def gradient_differences(model: ViRMFS, batch: Sample, config: VirmfsConfig) -> dict[str, tuple[float, str]]:
    """`largest_difference` from the published form in float64, of tectum's form and of either in float32."""
    names = [name for name, _ in model.named_parameters()]
    reference = Published(model)
    expected = gradients(reference, batch, config, torch.float64)
    found = {
        "tectum, float64": gradients(model, batch, config, torch.float64),
        "tectum, float32": gradients(model, batch, config, torch.float32),
        "published, float32": gradients(reference, batch, config, torch.float32),
    }
    return {form: largest_difference(values, expected, names) for form, values in found.items()}


def training_step(model: nn.Module, batch: Sample, config: VirmfsConfig, precision: Precision) -> Callable[[], None]:
    """One step of the recipe, as a function to call again and again."""
    accelerator = Accelerator(cpu=True)
    optimiser = make_optimiser(config.optimiser, model.parameters())
    average = make_average(model, config.run.ema)
    objective = Objective(config.loss, None, accelerator, precision)

    def step() -> None:
        differentiate(model, torch.stack(list(objective(model, batch).values())).sum(), accelerator)
        clip_and_step(optimiser, config.optimiser)
        if average is not None:
            average.update_parameters(model)

    return step


def time_in_turn(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, dict[str, float]]:
    """Seconds per step of each: median and quartiles of wall-clock time, median of CPU time."""
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            started, used = time.perf_counter(), time.process_time()
            step()
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - used)
    return {name: summary(wall[name]) | {"cpu median": statistics.median(cpu[name])} for name in steps}


def summary(seconds: list[float]) -> dict[str, float]:
    lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"median": median, "lower quartile": lower, "upper quartile": upper}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", nargs="+", choices=("float32", "bf16"), default=["float32", "bf16"])
    parser.add_argument("--rounds", type=int, default=10, help="timed steps of each form, at least 2")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    config = read_config(VirmfsConfig, CONFIG)
    batch = rendered_batch(config.run.batch, config.data.augmentation.crop)
    model = tectum.create_model("virmfs_b0").train()
    result = {
        "environment": environment() | {"threads": torch.get_num_threads(), "precision": arguments.precision},
        "batch": list(batch.visible.shape),
        "rounds": arguments.rounds,
    }
    print(
        f"tectum {tectum.__version__}, torch {torch.__version__}, threads {torch.get_num_threads()}, "
        f"batch {len(batch.visible)} of {batch.visible.shape[3]}x{batch.visible.shape[2]}, rounds {arguments.rounds}"
    )

    differences = gradient_differences(model, batch, config)
    result["gradient difference"] = {form: {"largest": d, "at": name} for form, (d, name) in differences.items()}
    print("largest relative difference of a parameter's gradients from the published form in float64:")
    for form, (difference, name) in differences.items():
        print(f"  {form:20} {difference:8.1e}  {name}")

    result["seconds per step"] = {}
    for precision in arguments.precision:
        networks = {"published": Published(model), "tectum": copy.deepcopy(model)}
        steps = {name: training_step(network, batch, config, precision) for name, network in networks.items()}
        times = time_in_turn(steps, arguments.rounds)
        print(f"{precision}, seconds per step: median (quartiles), CPU time")
        for name, seconds in times.items():
            quartiles = f"({seconds['lower quartile']:.3f} to {seconds['upper quartile']:.3f})"
            print(f"  {name:10} {seconds['median']:7.3f} {quartiles}, {seconds['cpu median']:7.3f}")
        ratio, cpu_ratio = (times["published"][key] / times["tectum"][key] for key in ("median", "cpu median"))
        print(f"  published / tectum: {ratio:.2f}, of CPU time {cpu_ratio:.2f}")
        result["seconds per step"][precision] = times | {"ratio": ratio, "cpu ratio": cpu_ratio}

    if arguments.json is not None:
        write_text(arguments.json, json.dumps(result, indent=2) + "\n")
    if differences["tectum, float64"][0] > TOLERANCE:
        raise SystemExit(f"the gradients differ by more than {TOLERANCE:g}: one of the two forms is wrong")


if __name__ == "__main__":
    main()
