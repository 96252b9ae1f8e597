"""`tectum export`: write a network as a file for ONNX Runtime or OpenVINO, checked against torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tectum.errors import ConfigError

if TYPE_CHECKING:
    from tectum.export import Report


def export(
    model: Annotated[
        str, typer.Option(help="Shipped name (see `tectum models`), saved model's folder, or authors' .pth file.")
    ],
    format: Annotated[str, typer.Option(help="onnx, or openvino for OpenVINO's IR.")],
    out: Annotated[Path, typer.Option(help="File to write: .onnx, or .xml (the weights go beside it, .bin).")],
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise to 8 bits after training; openvino only, needs pairs.")
    ] = False,
    visible: Annotated[
        str | None, typer.Option(help="Visible images, as for `tectum fuse`: to check the file on, and for INT8.")
    ] = None,
    infrared: Annotated[str | None, typer.Option(help="Infrared images, given in the same way.")] = None,
) -> None:
    """Write a network as one file that `tectum fuse --model FILE` runs without torch.

    Height, width and batch are free. The file is compared with the network in torch before it gets its name: on random
    images and on the first of the given pairs, or else on a rendered scene. INT8 is calibrated on the given pairs (at
    most 300, evenly spread), and what it costs on them is printed.
    """
    from tectum.cli.console import output, require_writable
    from tectum.cli.pairs import optional_pairs
    from tectum.export import FORMATS, check_request
    from tectum.export import export as write

    check_request(out, format, pairs=visible is not None or infrared is not None, int8=int8)
    if Path(model).suffix.lower() in FORMATS.values():
        raise ConfigError(f"'{model}' is an exported file already; give the weights that it was made from")
    pairs = optional_pairs(visible, infrared)
    require_writable(out.absolute().parent)
    report = write(model, out, format=format, pairs=pairs, int8=int8)
    output().print("\n".join(_lines(report)), markup=False, soft_wrap=True)


def _lines(report: "Report") -> list[str]:
    lines = [f"wrote {report.file}", "compared with torch:"]
    for check in report.checks:
        batch, height, width = check.size
        lines.append(
            f"  {check.content}, {batch} x {width}x{height}: fused differs by at most {check.fused:.2g} of 255, "
            f"{100 * check.labels:.2f} % of the labels are equal"
        )
    quality = report.quality
    if quality is not None:
        lines += [
            f"loss of quality by INT8, on {quality.pairs} pair{'s' * (quality.pairs > 1)} at their own size:",
            f"  fused differs by {quality.fused_mean:.2g} of 255 in the mean, {quality.fused_max:.2g} at most; "
            f"{100 * quality.labels:.2f} % of the labels are equal",
            *(
                f"  {symbol}: {quality.before[key]:.4f} in float32, {quality.after[key]:.4f} in INT8"
                for key, symbol in (("qabf", "Qabf"), ("mi", "MI"))
            ),
        ]
    return [*lines, f"run it: tectum fuse --model {report.file} --visible SRC --infrared SRC --out DIR"]
