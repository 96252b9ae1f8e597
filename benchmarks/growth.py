"""Draw how time and memory grow with the size, of the first model in a JSON of `tectum bench` with several --size.

    python benchmarks/growth.py FILE.json OUT.png

The dashed line is linear in pixels. Hollow points are images in tiles.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    draw(json.loads(arguments.json.read_text(encoding="utf-8")), arguments.out)


def draw(report: dict[str, Any], out: Path) -> None:
    """Plot the latency and the peak memory of every row against the size."""
    groups = [group for group in report["groups"] if group["model"] == report["groups"][0]["model"]]
    groups.sort(key=_megapixels)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.9), layout="constrained")
    for name in report["plan"]["rows"]:
        _line(left, name, groups, lambda row: row["latency"]["median"])
        _line(right, name, groups, lambda row: row["peak_bytes"] / 1e9)

    sizes = [_megapixels(group) for group in groups]
    bottom = min(row["latency"]["median"] for group in groups for row in group["rows"] if row["latency"])
    left.plot(sizes, [bottom * size / sizes[0] for size in sizes], "k--", linewidth=1, label="linear in pixels")
    left.set(yscale="log", ylabel="seconds for one pair", title=f"{groups[0]['model']}: latency")
    right.set(ylim=(0, None), ylabel="GB", title="peak memory of the process")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="pixels")
        axes.set_xticks(sizes, [f"{group['width']}x{group['height']}" for group in groups], rotation=20)
        axes.minorticks_off()
    left.legend()
    figure.savefig(out, dpi=100)
    plt.close(figure)


def _line(axes: Axes, name: str, groups: list[dict[str, Any]], value: Any) -> None:
    rows = [(_megapixels(group), row) for group in groups for row in group["rows"] if row["name"] == name]
    rows = [(size, row) for size, row in rows if row["latency"]]
    (line,) = axes.plot([size for size, _ in rows], [value(row) for _, row in rows], label=name, linewidth=1)
    for size, row in rows:
        filled = line.get_color() if row["tiles"] == 1 else "white"
        axes.plot(size, value(row), "o", color=line.get_color(), markerfacecolor=filled, markersize=5)


def _megapixels(group: dict[str, Any]) -> float:
    return group["width"] * group["height"] / 1e6


if __name__ == "__main__":
    main()
