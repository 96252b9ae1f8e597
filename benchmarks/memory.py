"""Memory of a run per input pixel: python benchmarks/memory.py [--models ...] [--backends ...] [--sizes ...].

Each size runs in a process of its own, whose peak memory `tectum.bench.process` tells. The growth of the peak from one
size to the next, divided by that of the pixels, is what `tectum.predict.tiling.BYTES_PER_PIXEL` rounds up.
"""

import argparse
import subprocess
import sys
import tempfile
from itertools import pairwise, product
from pathlib import Path

import tectum
from tectum.weights import EXPORT_SUFFIXES

_RUN = """
import sys
import numpy as np
from tectum.bench.process import peak_memory
from tectum.predict.choice import create_engine
model, backend, width, height, rows = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
network = create_engine(model, "cpu", backend)
visible, infrared = (np.random.default_rng(0).random((1, c, height, width), np.float32) for c in (3, 1))
for _ in network.bands(visible, infrared, rows) if rows else [network.run(visible, infrared)]:
    pass
print(peak_memory())
"""


def peak(model: str, backend: str, size: tuple[int, int], rows: int = 0) -> int:
    """Bytes of peak memory of a process that runs one pair of `size` (width, height), in bands of `rows` if not 0."""
    arguments = [model, backend, *map(str, size), str(rows)]
    run = subprocess.run([sys.executable, "-c", _RUN, *arguments], capture_output=True, text=True, check=True)
    return int(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["virmfs_b0", "mafs_r18"], help="architectures")
    parser.add_argument("--backends", nargs="+", default=["torch"], help="torch, onnx, openvino")
    parser.add_argument("--rows", type=int, default=0, help="in bands of so many rows, which only torch has")
    parser.add_argument("--sizes", nargs="+", default=["640x480", "1280x1024"], help="multiples of 32, small to large")
    arguments = parser.parse_args()
    sizes = [tuple(map(int, size.split("x"))) for size in arguments.sizes]
    for name, backend in product(arguments.models, arguments.backends):
        with tempfile.TemporaryDirectory() as folder:
            tectum.create_model(name, classes=9).save(Path(folder) / name)
            weights = str(Path(folder) / name)
            if backend in EXPORT_SUFFIXES:
                peak(weights, backend, sizes[0])  # the first run exports the weights, which takes more memory
            peaks = []
            for size in sizes:
                peaks.append(peak(weights, backend, size, arguments.rows))
                print(f"{name} {backend} {size[0]}x{size[1]}: {peaks[-1] / 1e6:.0f} MB", flush=True)
        for (one, before), (other, after) in pairwise(zip(sizes, peaks, strict=True)):
            growth = (after - before) / (other[0] * other[1] - one[0] * one[1])
            print(f"{name} {backend} {one[0]}x{one[1]} -> {other[0]}x{other[1]}: {growth:.0f} bytes per pixel")


if __name__ == "__main__":
    main()
