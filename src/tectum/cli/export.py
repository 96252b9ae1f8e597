"""`tectum export`: write a network as a file for ONNX Runtime or OpenVINO, checked against torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tectum import DEFAULT_WEIGHTS
from tectum.cli.console import output, require_writable
from tectum.cli.options import Model, OptionalInfrared, OptionalVisible
from tectum.cli.pairs import optional_pairs
from tectum.errors import ConfigError
from tectum.export import Report, check_request
from tectum.export import export as write
from tectum.export.files import MOST_PAIRS, spread
from tectum.predict import Predictor
from tectum.weights import resolve

if TYPE_CHECKING:
    from tectum.evaluation import PrecisionCost  # imports torch


def export(
    format: Annotated[str, typer.Option(help="onnx, or openvino for OpenVINO's IR.")],
    out: Annotated[Path, typer.Option(help="File to write: .onnx, or .xml (the weights go beside it, .bin).")],
    model: Model = DEFAULT_WEIGHTS,
    precision: Annotated[
        str,
        typer.Option(
            help="float32; for openvino also bfloat16, or int8, which is quantised after training and needs pairs."
        ),
    ] = "float32",
    visible: OptionalVisible = None,
    infrared: OptionalInfrared = None,
) -> None:
    """Write a network as one file that `tectum fuse --model FILE` runs without torch.

    Height, width and batch are free. The file is compared with the network in torch before it gets its name: on random
    images and on the first of the given pairs, or else on a rendered scene. Of bfloat16 and int8, what they cost on the
    given pairs (at most 300, evenly spread) is printed; int8 is calibrated on the same.
    """
    check_request(out, format, precision, pairs=visible is not None or infrared is not None)
    if resolve(model).kind == "exported":
        raise ConfigError(f"'{model}' is an exported file already; give the weights that it was made from")
    pairs = optional_pairs(visible, infrared)
    require_writable(out.absolute().parent)
    report = write(model, out, format=format, pairs=pairs, precision=precision)
    cost = None
    if pairs and precision != "float32":
        from tectum.evaluation import precision_cost

        cost = precision_cost(Predictor(model, backend="torch"), Predictor(out), spread(pairs, MOST_PAIRS))
    output().print("\n".join(_lines(report, precision, cost)), markup=False, soft_wrap=True)


def _lines(report: Report, precision: str, cost: "PrecisionCost | None") -> list[str]:
    lines = [f"wrote {report.file}", "compared with torch:"]
    for check in report.checks:
        batch, height, width = check.size
        lines.append(
            f"  {check.content}, {batch} x {width}x{height}: fused differs by at most {check.fused:.2g} of 255, "
            f"{100 * check.labels:.2f} % of the labels are equal"
        )
    if cost is not None:
        lines += [
            f"loss of quality by {precision}, on {cost.pairs} pair{'s' * (cost.pairs > 1)} at their own size:",
            f"  fused differs by {cost.fused_mean:.2g} of 255 in the mean, {cost.fused_max:.2g} at most; "
            f"{100 * cost.labels:.2f} % of the labels are equal",
            *(
                f"  {symbol}: {cost.before[key]:.4f} in float32, {cost.after[key]:.4f} in {precision}"
                for key, symbol in (("qabf", "Qabf"), ("mi", "MI"))
            ),
        ]
    return [*lines, f"run it: tectum fuse --model {report.file} --visible SRC --infrared SRC --out DIR"]
