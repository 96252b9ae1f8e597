"""The eight fusion metrics of this field's tables: tectum against the usual numpy and scipy evaluator, in one run.

    python benchmarks/metrics.py [--pairs 5] [--size 640x480] [--repeats 5] [--json FILE]

Contract: both sides score the same rendered pairs on the CPU, each image apart, threads as torch chooses them; after
one warm-up the whole set is timed `repeats` times, the two sides in turn; reported are the median and the spread per
pair. The values of both sides must agree to 1e-5 relative, or the benchmark fails.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy
import torch
from scipy.signal import convolve2d
from sklearn.metrics import mutual_info_score

from tectum.arrays import LUMA
from tectum.metrics.functional import fusion_scores
from tectum.scenes import render_scene

Grey = np.ndarray
SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], float)


def usual_scores(fused: Grey, visible: Grey, infrared: Grey) -> dict[str, float]:
    """The metrics as evaluators of this field are written: float64 grey images 0..255, one function after the other."""
    sources = (visible, infrared)
    return {
        "en": entropy(fused),
        "sd": float(np.std(fused)),
        "sf": spatial_frequency(fused),
        "ag": average_gradient(fused),
        "mi": sum(mutual_info_score(fused.ravel(), s.ravel()) for s in sources) / np.log(2),
        "vif": sum(vif(s, fused) for s in sources),
        "qabf": qabf(fused, visible, infrared),
        "scd": correlation(fused - infrared, visible) + correlation(fused - visible, infrared),
    }


def entropy(image: Grey) -> float:
    counts = np.histogram(image, 256, (0, 256))[0]
    p = counts[counts > 0] / image.size
    return float(-(p * np.log2(p)).sum())


def spatial_frequency(image: Grey) -> float:
    return float(np.sqrt((np.diff(image, axis=1) ** 2).mean() + (np.diff(image, axis=0) ** 2).mean()))


def average_gradient(image: Grey) -> float:
    rows, columns = np.gradient(image)
    return float(np.sqrt((rows**2 + columns**2) / 2).mean())


def vif(reference: Grey, distorted: Grey) -> float:
    numerator = denominator = 0.0
    for scale in range(1, 5):
        size = 2 ** (5 - scale) + 1
        axis = np.arange(size) - size // 2
        window = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * (size / 5) ** 2))
        window /= window.sum()

        def smooth(x: Grey, window: Grey = window) -> Grey:
            return convolve2d(x, window, mode="valid")

        if scale > 1:
            reference, distorted = smooth(reference)[::2, ::2], smooth(distorted)[::2, ::2]
        mean1, mean2 = smooth(reference), smooth(distorted)
        variance1 = np.maximum(smooth(reference**2) - mean1**2, 0)
        variance2 = np.maximum(smooth(distorted**2) - mean2**2, 0)
        gain = (smooth(reference * distorted) - mean1 * mean2) / (variance1 + 1e-10)
        rest = variance2 - gain * (smooth(reference * distorted) - mean1 * mean2)
        gain[variance1 < 1e-10], rest[variance1 < 1e-10] = 0, variance2[variance1 < 1e-10]
        variance1[variance1 < 1e-10] = 0
        gain[variance2 < 1e-10], rest[variance2 < 1e-10] = 0, 0
        rest[gain < 0], gain[gain < 0] = variance2[gain < 0], 0
        rest = np.maximum(rest, 1e-10)
        numerator += np.log10(1 + gain**2 * variance1 / (rest + 2)).sum()
        denominator += np.log10(1 + variance1 / 2).sum()
    return float(numerator / denominator)


def qabf(fused: Grey, visible: Grey, infrared: Grey) -> float:
    def edges(image: Grey) -> tuple[Grey, Grey]:
        # The relative sign matters where x is 0, since both vertical directions become the same angle.
        x, y = convolve2d(image, SOBEL, mode="same"), convolve2d(image, -SOBEL.T, mode="same")
        with np.errstate(divide="ignore", invalid="ignore"):
            angle = np.where(x == 0, np.pi / 2, np.arctan(y / x))
        return np.hypot(x, y), angle

    def transfer(source: tuple[Grey, Grey], result: tuple[Grey, Grey]) -> Grey:
        (g, a), (gf, af) = source, result
        with np.errstate(divide="ignore", invalid="ignore"):
            strength = np.where(g > gf, gf / g, np.where(g == gf, gf, g / gf))
        angle = 1 - np.abs(a - af) / (np.pi / 2)
        return 0.9994 / (1 + np.exp(-15 * (strength - 0.5))) * 0.9879 / (1 + np.exp(-22 * (angle - 0.8)))

    result, first, second = edges(fused), edges(visible), edges(infrared)
    weighted = transfer(first, result) * first[0] + transfer(second, result) * second[0]
    return float(weighted.sum() / (first[0] + second[0]).sum())


def correlation(first: Grey, second: Grey) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def rendered(count: int, size: tuple[int, int]) -> list[tuple[Grey, Grey, Grey]]:
    """Whole grey levels 0..255 of (fused, visible, infrared); fused leans to the maximum: nothing is trivial."""
    triples = []
    for seed in range(count):
        scene = render_scene(seed, size=size)
        visible = np.rint(scene.visible @ np.array(LUMA) * 255)
        infrared = np.rint(scene.infrared.astype(float) * 255)
        triples.append((np.rint(0.8 * np.maximum(visible, infrared) + 0.2 * visible), visible, infrared))
    return triples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    triples = rendered(options.pairs, (height, width))
    tensors = [tuple(torch.from_numpy(x.astype(np.uint8))[None, None] for x in triple) for triple in triples]
    sides: dict[str, Callable[[], list[dict[str, float]]]] = {
        "tectum": lambda: [{k: float(v) for k, v in fusion_scores(*triple).items()} for triple in tensors],
        "usual": lambda: [usual_scores(*triple) for triple in triples],
    }
    values = {name: side() for name, side in sides.items()}
    worst = max(
        abs(ours[key] - theirs[key]) / abs(theirs[key])
        for ours, theirs in zip(values["tectum"], values["usual"], strict=True)
        for key in theirs
    )
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.repeats):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            seconds[name].append((time.perf_counter() - start) / len(triples))
    report = {
        "size": options.size,
        "pairs": options.pairs,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "scipy": scipy.__version__},
        "largest relative difference": worst,
        "seconds per pair": {
            name: {"median": statistics.median(times), "min": min(times), "max": max(times)}
            for name, times in seconds.items()
        },
        "speed-up": statistics.median(seconds["usual"]) / statistics.median(seconds["tectum"]),
    }
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if worst > 1e-5:
        raise SystemExit(f"the two sides differ by {worst:.2g}: one of them is wrong")


if __name__ == "__main__":
    main()
