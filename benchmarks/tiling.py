"""How far a tiled result is from the whole one: python benchmarks/tiling.py VISIBLE INFRARED [--tiles 512 768 1024]."""

import argparse

import numpy as np

import tectum


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("visible", help="a large image, LLVIP's 1280x1024 for example")
    parser.add_argument("infrared", help="its twin")
    parser.add_argument("--model", default="virmfs_b0_msrs")
    parser.add_argument("--tiles", type=int, nargs="+", default=[512, 768, 1024], help="sides of the tiles in pixels")
    arguments = parser.parse_args()

    def run(tile: int | str) -> tectum.Result:
        predictor = tectum.Predictor(arguments.model, backend="torch", tile=tile)
        return predictor(visible=arguments.visible, infrared=arguments.infrared)

    whole = run("off")
    for side in arguments.tiles:
        tiled = run(side)
        difference = 255 * np.abs(tiled.luminance - whole.luminance)
        same = (tiled.labels == whole.labels).mean()
        print(f"{side:5}: fused {np.percentile(difference, 99.9):5.1f} / 255 (99.9th percentile), labels {same:6.1%}")


if __name__ == "__main__":
    main()
