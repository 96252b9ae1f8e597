"""How far large images that are not run whole are from the whole: python benchmarks/tiling.py VISIBLE INFRARED.

In the backend torch, ViR-MFS runs in bands of rows; other networks, and other backends, in overlapping tiles.
"""

import argparse

import numpy as np

import tectum


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("visible", help="a large image, LLVIP's 1280x1024 for example")
    parser.add_argument("infrared", help="its twin")
    parser.add_argument("--model", default="virmfs_b0_msrs")
    parser.add_argument("--backend", default="torch", help="torch, onnx or openvino")
    parser.add_argument(
        "--tiles", type=int, nargs="+", default=[256, 512, 768, 1024], help="heights of bands or sides of tiles, pixels"
    )
    arguments = parser.parse_args()

    def run(tile: int | str) -> tectum.Result:
        predictor = tectum.Predictor(arguments.model, backend=arguments.backend, device="cpu", tile=tile)
        return predictor(visible=arguments.visible, infrared=arguments.infrared)

    whole = run("off")
    for side in arguments.tiles:
        tiled = run(side)
        difference = 255 * np.abs(tiled.luminance - whole.luminance)
        same = (tiled.labels == whole.labels).mean()
        print(f"{side:5}: fused {np.percentile(difference, 99.9):7.4f} / 255 (99.9th percentile), labels {same:8.3%}")


if __name__ == "__main__":
    main()
