"""Scores of several methods on the same pairs, as text: CSV, JSON, Markdown, LaTeX; and as a plot."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tectum.errors import MissingExtraError
from tectum.files import atomic_path
from tectum.metrics.functional.keys import METRICS

ScoresByImage = Mapping[str, Mapping[str, float]]
"""Metric values of each image: {image: {metric key: value}}."""


@dataclass(frozen=True)
class ScoreTable:
    """One row per method, one column per metric.

    Attributes:
        convention: name of the convention by which the values were computed.
        keys: metric keys, in the order of the columns.
        methods: values of each image, by method, in the order of the rows.
    """

    convention: str
    keys: Sequence[str]
    methods: Mapping[str, ScoresByImage]

    def mean(self, method: str) -> dict[str, float]:
        """Mean of each metric over the images of a method; NaN where it has none."""
        images = self.methods[method].values()
        return {key: sum(image[key] for image in images) / len(images) if images else math.nan for key in self.keys}

    def best(self) -> dict[str, str]:
        """Method with the best mean of each metric, by the metric's direction."""
        means = {name: mean for name in self.methods if not math.isnan((mean := self.mean(name))[self.keys[0]])}
        return {
            key: (max if METRICS[key].higher_is_better else min)(means, key=lambda name: means[name][key])
            for key in (self.keys if means else ())
        }

    def heads(self) -> list[str]:
        """Symbol of each metric with an arrow towards better."""
        return [f"{METRICS[key].symbol} {'↑' if METRICS[key].higher_is_better else '↓'}" for key in self.keys]

    def rows(self, mark: str = "{}") -> list[list[str]]:
        """Method and its means as text; `mark` is the template of the best value of a column."""
        best = self.best()
        rows = []
        for name in self.methods:
            mean = self.mean(name)
            cells = [mark.format(_number(mean[k])) if best.get(k) == name else _number(mean[k]) for k in self.keys]
            rows.append([name, *cells])
        return rows

    def csv(self) -> str:
        """One line for each method and image, and one with the mean of each method."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["method", "image", *self.keys])
        for name, images in self.methods.items():
            writer.writerows([name, image, *(values[key] for key in self.keys)] for image, values in images.items())
            mean = self.mean(name)
            writer.writerow([name, "mean", *(mean[key] for key in self.keys)])
        return text.getvalue()

    def markdown(self) -> str:
        """The means as a Markdown table, the best of each column bold."""
        lines = [["method", *self.heads()], ["---", *["---:"] * len(self.keys)], *self.rows("**{}**")]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def latex(self) -> str:
        """The means as a LaTeX tabular (booktabs), the best of each column bold."""
        heads = [head.replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$") for head in self.heads()]
        rows = [[name.replace("_", r"\_"), *cells] for name, *cells in self.rows(r"\textbf{{{}}}")]
        body = "".join(f"{' & '.join(row)} \\\\\n" for row in rows)
        return (
            f"\\begin{{tabular}}{{l{'r' * len(self.keys)}}}\n\\toprule\nmethod & {' & '.join(heads)} \\\\\n\\midrule\n"
            f"{body}\\bottomrule\n\\end{{tabular}}\n"
        )

    def to_dict(self) -> dict[str, Any]:
        """{"convention", "methods": {NAME: {"images", "mean"}}}, and "images" and "mean" of the first method."""
        methods = {name: {"images": images, "mean": self.mean(name)} for name, images in self.methods.items()}
        content: dict[str, Any] = {"convention": self.convention, "methods": methods}
        if methods:
            content |= next(iter(methods.values()))
        return content

    def plot(self, path: Path) -> None:
        """Draw one panel per metric with a bar per method and a dot per image, in the format of the path's suffix.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError:
            raise MissingExtraError("--plot", "plot") from None
        columns = min(4, len(self.keys))
        lines = -(-len(self.keys) // columns)
        height = 1 + 0.28 * len(self.methods)
        figure = Figure(figsize=(3.4 * columns, lines * height + 0.4), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False, sharey=True).flat
        places = range(len(self.methods))
        for axis, key, head in zip(axes, self.keys, self.heads(), strict=False):
            axis.barh(places, [self.mean(name)[key] for name in self.methods], color="#4c78a8", height=0.6)
            for place, images in zip(places, self.methods.values(), strict=True):
                values = [image[key] for image in images.values()]
                axis.plot(values, [place] * len(values), "k.", markersize=2, alpha=0.35)
            axis.set_title(head, fontsize=10)
            axis.set_yticks(list(places), list(self.methods), fontsize=8)
            axis.tick_params(axis="x", labelsize=8)
        for axis in list(axes):
            axis.set_visible(False)
        figure.axes[0].invert_yaxis()
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=120)


def _number(value: float) -> str:
    """Four significant digits, but whole numbers from a thousand on, and at most five decimals."""
    if math.isnan(value):
        return "-"
    if abs(value) < 0.1:
        return f"{round(value, 5) + 0.0:.5f}"  # the sum takes the sign from -0
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.4g}"
