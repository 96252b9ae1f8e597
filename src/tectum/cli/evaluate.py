"""`tectum eval`: the scores of a model on a data set, with all that must be known to compare them."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tectum import DEFAULT_WEIGHTS
from tectum.cli.console import (
    collected_warnings,
    messages,
    output,
    progress,
    require_writable,
    show_problems,
    show_warnings,
    write_json,
)
from tectum.cli.options import Backend, Batch, Device, Json, Model
from tectum.data.datasets import DatasetInfo, dataset_info, scan_pairs
from tectum.data.pair import PairPaths, read_pair
from tectum.errors import ConfigError
from tectum.predict import Predictor
from tectum.weights import resolve

if TYPE_CHECKING:
    from tectum.evaluation import Evaluation  # imports torch

_RESIZE = "none: native size, padded by reflection to multiples of {stride} and cropped back"
_CONVENTION = (
    "tectum: 8-bit BT.601 luminance of the fused RGB picture as saved; mean over the images; MI in bits; MI, VIF and "
    "SCD are sums over both sources"
)
_ECE = "expected calibration error of the labels' confidence over all labelled pixels, 15 bins of equal width"
_IOU = "one confusion matrix over all images; classes that occur neither in labels nor predictions are left out"


def evaluate(
    data: Annotated[Path, typer.Option(help="Root folder of the data set.")],
    dataset: Annotated[str, typer.Option(help="Layout and classes: msrs, mfnet, fmb, pst900 or folder.")],
    model: Model = DEFAULT_WEIGHTS,
    split: Annotated[
        str | None, typer.Option(help="By default the test split where there is one, else everything.")
    ] = None,
    device: Device = "auto",
    backend: Backend = "auto",
    batch: Batch = 1,
    looked_for: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS,...",
            help="The only classes that the label maps look for, by name or id: all others count as class 0.",
        ),
    ] = None,
    without: Annotated[
        Literal["visible", "infrared"] | None,
        typer.Option(help="A camera that is lost: black, or grey, in place of its images."),
    ] = None,
    json: Json = None,
) -> None:
    """Score a model on a data set: segmentation, fusion, agreement with boxes where there are boxes.

    Pairs that cannot be scored are left out, listed, and make the exit code 1.
    """
    info = dataset_info(dataset)
    pairs, problems = scan_pairs(data, dataset, split)
    if split is None and any(paths.split == "test" for paths in pairs):
        pairs = [paths for paths in pairs if paths.split == "test"]
    if json:
        require_writable(json.absolute().parent)

    from tectum import evaluation

    predictor = Predictor(model, device, backend)
    classes = _class_list(predictor, info, pairs)
    ids = None if looked_for is None else _class_ids(looked_for, classes)
    splits = sorted({paths.split for paths in pairs if paths.split})
    console = messages()
    read = partial(read_pair, classes=len(classes), ignore=info.ignore)
    with collected_warnings() as warned, progress("scoring", len(pairs), console) as advance:
        found = evaluation.evaluate(
            predictor,
            pairs,
            boxes=info.name == "msrs",
            looked_for=ids,
            without=without,
            batch=batch,
            read=read,
            advance=advance,
        )
    problems += found.problems

    show_warnings(warned, console)
    weights = resolve(model).weights
    report: dict[str, Any] = {
        "model": predictor.name,
        "backend": predictor.engine.runtime,
        "weights": {"file": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
        "data": {
            "dataset": info.name,
            "root": str(data),
            "split": ", ".join(splits) or None,
            "images": len(found.images),
            "labelled": found.labelled,
            "names_sha256": hashlib.sha256("\n".join(sorted(found.images)).encode()).hexdigest(),
        },
        "resize": _RESIZE.format(stride=predictor.engine.stride),
        "without": without,
        **_sections(found, classes, info, ids),
        "problems": [problem._asdict() for problem in problems],
        "warnings": warned,
    }
    _show(report, output())
    if problems:
        show_problems(problems, console)
    if json:
        write_json(json, report)
    if problems:
        raise typer.Exit(1)


def _class_ids(text: str, classes: Sequence[str]) -> tuple[int, ...]:
    """Ids of classes that are given by names or ids."""
    ids = []
    for one in (part.strip() for part in text.split(",")):
        if one in classes:
            ids.append(classes.index(one))
        elif one.isdecimal() and 0 < int(one) < len(classes):
            ids.append(int(one))
        else:
            raise ConfigError(f"--looked-for cannot be '{one}'; the classes are {', '.join(classes[1:])}")
    return tuple(dict.fromkeys(ids))


def _sections(
    found: "Evaluation", classes: Sequence[str], info: DatasetInfo, looked_for: Sequence[int] | None
) -> dict[str, Any]:
    """Sections `fusion`, `segmentation` and `calibration` (where there are labels), and `boxes` (where there are)."""
    from tectum.evaluation import flood

    sections: dict[str, Any] = {}
    if found.images:
        mean = {key: value for key, value in found.means().items() if key != "miou"}
        sections["fusion"] = {"convention": _CONVENTION, "mean": mean, "images": found.images}
    if found.labelled:
        values = found.segmentation.compute()
        sections["segmentation"] = {
            "convention": _IOU,
            "class_list": list(classes),
            "ignored_ids": list(info.ignore),
            "miou_with_class_0": float(values["miou"]),
            "miou_without_class_0": float(values["miou_without_0"]),
            "mean_class_accuracy_with_class_0": float(values["class_accuracy"]),
            "pixel_accuracy": float(values["pixel_accuracy"]),
            "classes": [
                {"id": index, "name": name, "iou": iou, "accuracy": accuracy}
                for index, (name, iou, accuracy) in enumerate(
                    zip(classes, values["iou"].tolist(), values["recall"].tolist(), strict=True)
                )
            ],
            "confusion_matrix": found.segmentation.matrix.tolist(),
        }
        if looked_for is not None:
            sections["segmentation"] |= {
                "looked_for": [classes[label] for label in looked_for],
                "flood": flood(found.segmentation.matrix, looked_for),
            }
        calibration = found.calibration.compute()
        sections["calibration"] = {"convention": _ECE, "ece": float(calibration["ece"])} | {
            key: calibration[key].nan_to_num(0).tolist() for key in ("pixels", "confidence", "accuracy")
        }
    if found.contrast.counts[0]:
        contrast = found.contrast.compute()
        sections["objects"] = {
            "convention": "persons that differ by 15 grey levels or more from their surroundings in a source; kept: "
            "those with 0.7 of that in the fused image, hidden: those with less than 10 grey levels",
            "objects": int(contrast["objects"]),
            "kept": float(contrast["kept"]),
            "hidden": float(contrast["hidden"]),
        }
    counts = found.boxes.counts.tolist()
    if any(number for number, *_ in counts):
        values = found.boxes.compute()
        sections["boxes"] = {
            "convention": "a box is found when 25 % of its pixels carry its class; inside: share of the class's "
            "pixels that lie in its boxes",
            "classes": [
                {"name": classes[label], "boxes": number, "found": found, "inside": inside}
                for label, (number, *_), found, inside in zip(
                    found.boxes.classes, counts, values["found"].tolist(), values["inside"].tolist(), strict=True
                )
            ],
        }
    return sections


def _class_list(predictor: Predictor, info: DatasetInfo, pairs: Sequence[PairPaths]) -> tuple[str, ...]:
    """The classes that are scored: the data set's, which must be the model's; for plain folders the model's."""
    if not info.classes or not any(paths.label for paths in pairs):
        return predictor.class_names
    if len(info.classes) != predictor.classes:
        raise ConfigError(
            f"model '{predictor.name}' has {predictor.classes} classes and data set '{info.name}' "
            f"{len(info.classes)}: their labels cannot be compared; use weights trained for '{info.name}', or "
            "--dataset folder on a copy without labels to score the fusion alone"
        )
    return info.classes


def _show(report: dict[str, Any], console: Console) -> None:
    data = report["data"]
    facts = {
        "model": f"{report['model']}, backend {report['backend']}",
        "weights": f"{report['weights']['file']}, sha256 {report['weights']['sha256']}",
        "data": f"{data['dataset']}, split {data['split'] or 'none'}, {data['images']} images "
        f"({data['labelled']} labelled)",
        "names": f"sha256 {data['names_sha256']}",
        "resize": report["resize"],
    }
    for name, fact in facts.items():
        console.print(f"[bold]{name:8}[/]{escape(fact)}", soft_wrap=True)
    if "fusion" in report:
        from tectum.metrics import METRICS

        mean = report["fusion"]["mean"]
        table = Table(title="Fusion", title_justify="left")
        for key in mean:
            table.add_column(METRICS[key].symbol, justify="right")
        table.add_row(*(f"{value:.4f}" for value in mean.values()))
        _show_table(table, report["fusion"]["convention"], console)
    if "segmentation" in report:
        _show_segmentation(report["segmentation"], console)
    if "calibration" in report:
        calibration = report["calibration"]
        table = Table(title="Calibration", title_justify="left")
        table.add_column("ECE %", justify="right")
        table.add_row(_percent(calibration["ece"]))
        _show_table(table, calibration["convention"], console)
    if "objects" in report:
        objects = report["objects"]
        table = Table(title="Contrast of persons", title_justify="left")
        for column in ("persons", "kept %", "hidden %"):
            table.add_column(column, justify="right")
        table.add_row(str(objects["objects"]), _percent(objects["kept"]), _percent(objects["hidden"]))
        _show_table(table, objects["convention"], console)
    if "boxes" in report:
        boxes = report["boxes"]
        table = Table(title="Agreement with boxes", title_justify="left")
        for column in ("class", "boxes", "found %", "inside %"):
            table.add_column(column, justify="left" if column == "class" else "right")
        for row in boxes["classes"]:
            table.add_row(row["name"], str(row["boxes"]), _percent(row["found"]), _percent(row["inside"]))
        _show_table(table, boxes["convention"], console)


def _show_segmentation(scores: dict[str, Any], console: Console) -> None:
    ignored = ", ".join(map(str, scores["ignored_ids"]))
    table = Table(title="Segmentation", title_justify="left")
    for column in ("id", "class", "IoU %", "accuracy %"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for row in scores["classes"]:
        table.add_row(str(row["id"]), row["name"], _percent(row["iou"]), _percent(row["accuracy"]))
    table.add_section()
    accuracy = _percent(scores["mean_class_accuracy_with_class_0"])
    table.add_row("", "mean, class 0 counted", _percent(scores["miou_with_class_0"]), accuracy)
    table.add_row("", "mean, class 0 left out", _percent(scores["miou_without_class_0"]), "")
    table.add_row("", "all pixels", "", _percent(scores["pixel_accuracy"]))
    if "flood" in scores:
        table.add_row("", "flood", _percent(scores["flood"]), "")
    partly = (
        f"; looked for: {', '.join(scores['looked_for'])}, all others count as class 0; flood: share of the pixels "
        "that are none of these and carry one"
        if "flood" in scores
        else ""
    )
    _show_table(table, f"{scores['convention']}; ignored ids: {ignored}; accuracy is recall{partly}", console)


def _show_table(table: Table, convention: str, console: Console) -> None:
    console.print()
    console.print(table)
    console.print(escape(convention), style="dim", soft_wrap=True)


def _percent(value: float) -> str:
    return "-" if value != value else f"{100 * value:.2f}"
