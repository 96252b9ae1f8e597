"""How good fused pictures are: python benchmarks/pictures.py SET=VISIBLE,INFRARED[,LABELS] ... --model NAME ...

For each set of pairs, and for weather rendered on those whose names are given to --weather, one table: the models,
their networks with random weights (--random), the trivial fusions and the guided filter, by the fusion metrics and by
what becomes of persons (label 2 of the label maps). --lost takes either camera away and prints how much of the gradient
energy of the other the picture keeps. Weather is drawn with the seed of the pair's place, the same for every method.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import tectum
from tectum.arrays import Float
from tectum.data.datasets import list_images, match_pairs
from tectum.data.pair import Pair, read_pair
from tectum.data.weather import VISIBLE, fog
from tectum.evaluation import score_image
from tectum.files import write_text
from tectum.metrics import ContrastScores, object_contrasts, objects_of_class
from tectum.metrics.baselines import BASELINES
from tectum.predict.colour import luminance, to_bytes

KEYS = ("qabf", "mi", "vif", "scd", "sf", "ag", "nabf", "seam")
PERSON = 2
FOG = {f"fog {transmission}": transmission for transmission in (0.3, 0.2, 0.1)}

Fuse = Callable[[Pair], Float]
"""Fused luminance (H, W) of a pair."""


class Row(NamedTuple):
    """What a method scores on a set."""

    values: dict[str, float]
    objects: ContrastScores


def read_set(text: str) -> tuple[str, list[Pair]]:
    name, equals, folders = text.partition("=")
    parts = [Path(folder) for folder in folders.split(",")]
    if not equals or not 2 <= len(parts) <= 3:
        raise SystemExit(f"'{text}' must be SET=VISIBLE,INFRARED or SET=VISIBLE,INFRARED,LABELS")
    table, problems = match_pairs(*(list_images(folder) for folder in parts))
    for problem in problems:
        print(f"{problem.name}: {problem.message}")
    return name, [read_pair(paths) for paths in table]


def in_weather(pairs: list[Pair], kind: str) -> Iterator[Pair]:
    for seed, pair in enumerate(pairs):
        torch.manual_seed(seed)
        image = torch.from_numpy(pair.visible).permute(2, 0, 1)
        visible = fog(image, FOG[kind], 0.85) if kind in FOG else VISIBLE[kind](image)
        # As a camera would hand it on, in 8 bits.
        yield replace(pair, visible=to_bytes(visible.permute(1, 2, 0).numpy()).astype(np.float32) / np.float32(255))


def fused_by(predictor: tectum.Predictor) -> Fuse:
    return lambda pair: predictor.batch([pair])[0].luminance


def baseline(name: str) -> Fuse:
    def fuse(pair: Pair) -> Float:
        light, heat = (torch.from_numpy(image)[None, None] for image in (luminance(pair.visible), pair.infrared))
        return BASELINES[name](light, heat)[0, 0].numpy()

    return fuse


def random_weights(name: str, backend: str) -> tectum.Predictor:
    """The network of these weights with all of them drawn anew."""
    torch.manual_seed(0)
    trained = tectum.load(name)
    network = tectum.create_model(trained.architecture, **trained.arguments)
    return tectum.Predictor(network.eval(), backend=backend)


def score(pairs: list[Pair], methods: dict[str, Fuse]) -> dict[str, Row]:
    values: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    objects = {name: ContrastScores() for name in methods}
    for pair in pairs:
        light = luminance(pair.visible)
        for name, fuse in methods.items():
            fused = np.clip(fuse(pair), 0, 1)
            values[name].append(score_image(fused[None], light[None], pair.infrared[None], metrics=KEYS))
            masks = [] if pair.label is None else objects_of_class(pair.label, PERSON)
            objects[name].update(object_contrasts(fused, light, pair.infrared, masks))
    return {
        name: Row({key: float(np.mean([one[key] for one in rows])) for key in KEYS}, objects[name])
        for name, rows in values.items()
    }


def kept_energy(pairs: list[Pair], fuse: Fuse) -> dict[str, float]:
    """Gradient energy of the picture over that of the camera that is left, by the camera that is lost."""

    def energy(image: Float) -> float:
        return sum(float((step.astype(np.float64) ** 2).sum()) for step in np.gradient(image))

    sums = {"visible lost": [0.0, 0.0], "infrared lost": [0.0, 0.0]}
    for pair in pairs:
        grey = np.full_like(pair.infrared, 0.5)
        for lost, left, own in (
            ("infrared lost", replace(pair, infrared=grey), luminance(pair.visible)),
            ("visible lost", replace(pair, visible=np.repeat(grey[..., None], 3, axis=2)), pair.infrared),
        ):
            sums[lost][0] += energy(fuse(left))
            sums[lost][1] += energy(own)
    return {lost: kept / whole for lost, (kept, whole) in sums.items()}


def table(rows: dict[str, Row]) -> str:
    lines = [f"| method | {' | '.join(KEYS)} | persons | kept | hidden |", f"|---|{'---:|' * (len(KEYS) + 3)}"]
    for name, row in rows.items():
        counts = row.objects.counts.tolist()
        shares = [f"{count / counts[0]:.2f}" if counts[0] else "-" for count in counts[1:]]
        cells = [f"{row.values[key]:.4f}" if key in ("seam", "nabf") else f"{row.values[key]:.3f}" for key in KEYS]
        lines.append(f"| {' | '.join([name, *cells, str(counts[0]), *shares])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="SET=VISIBLE,INFRARED[,LABELS]")
    parser.add_argument("--model", action="append", default=[], help="weights; may be repeated")
    parser.add_argument("--random", action="store_true", help="also each model's network with random weights")
    parser.add_argument("--weather", action="append", default=[], metavar="SET", help="render weather on this set too")
    parser.add_argument("--kinds", default=",".join((*FOG, "smoke", "glare")), help="of weather, by commas")
    parser.add_argument(
        "--lost", action="append", default=[], metavar="SET", help="take either camera of this set away"
    )
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    methods: dict[str, Fuse] = {}
    for name in arguments.model:
        methods[name] = fused_by(tectum.Predictor(name, backend=arguments.backend))
        if arguments.random:
            methods[f"{name}, random weights"] = fused_by(random_weights(name, arguments.backend))
    networks = dict(methods)
    methods |= {name: baseline(name) for name in ("maximum", "Laplacian pyramid", "guided filter")}

    report: dict[str, dict[str, dict[str, float]]] = {}
    for name, pairs in (read_set(text) for text in arguments.sets):
        kinds = [kind.strip() for kind in arguments.kinds.split(",")] if name in arguments.weather else []
        for title, used in [(name, pairs), *((f"{name}, {kind}", list(in_weather(pairs, kind))) for kind in kinds)]:
            rows = score(used, methods)
            print(f"\n{title}, {len(used)} pairs\n\n{table(rows)}", flush=True)
            report[title] = {
                method: row.values | {key: float(value) for key, value in row.objects.compute().items()}
                for method, row in rows.items()
            }
        if name in arguments.lost:
            for method, fuse in networks.items():
                print(f"\n{name}, {method}: gradient energy kept", kept_energy(pairs, fuse), flush=True)
    if arguments.json:
        write_text(arguments.json, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
