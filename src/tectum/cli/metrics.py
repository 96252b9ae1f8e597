"""`tectum metrics`: score fused images that lie in folders, whoever made them."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from tectum.arrays import Float
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
from tectum.data.datasets import Problem, list_images, match_pairs
from tectum.data.pair import PairPaths, read_pair, read_visible
from tectum.errors import ConfigError, InputError
from tectum.files import write_text

if TYPE_CHECKING:
    from tectum.metrics import ContrastScores, ObjectContrast  # import torch
    from tectum.metrics.table import ScoreTable

Scores = dict[str, dict[str, dict[str, float]]]
Found = tuple[dict[str, float], list["ObjectContrast"]]


def metrics(
    visible: Annotated[Path, typer.Option(help="Folder of the visible images.")],
    infrared: Annotated[Path, typer.Option(help="Folder of the infrared images.")],
    fused: Annotated[Path | None, typer.Option(help="Folder of the fused images, named like the pairs.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(metavar="NAME=DIR", help="A further method's fused images; may be repeated.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Add the trivial fusions: without them MI and Qabf mislead.")
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(help="Folder of label maps, named like the pairs: also count objects kept."),
    ] = None,
    label: Annotated[int, typer.Option(help="Class id of these objects; 2 is person in MSRS.")] = 2,
    convention: Annotated[str, typer.Option(help="Whose definitions: tectum, vifb, matlab or cddfuse.")] = "tectum",
    select: Annotated[
        str | None, typer.Option("--metrics", help="Keys by commas, or all; by default the convention's usual ones.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write every image's values to this JSON file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="The same as CSV.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table of means as Markdown.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Write the table of means as LaTeX (booktabs).")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the methods side by side (.png, .pdf, .svg).")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Pairs scored at the same time.")] = os.cpu_count() or 1,
) -> None:
    """Score fused images against their sources, per image and on average, the best of each column marked."""
    from tectum.metrics.conventions import get_convention, select_metrics
    from tectum.metrics.table import ScoreTable

    rules = get_convention(convention)
    keys = select_metrics(rules, "all" if select == "all" else select.split(",") if select else None)
    folders = _methods(fused, method or [])
    if not folders and not baselines:
        raise ConfigError("there is nothing to score: give --fused DIR, --method NAME=DIR or --baselines")
    for file in (json, csv, markdown, latex, plot):
        if file:
            require_writable(file.absolute().parent)

    pairs, problems = match_pairs(
        list_images(visible), list_images(infrared), list_images(labels) if labels is not None else ()
    )
    files = {name: _by_pair(folder, pairs, name, problems) for name, folder in folders.items()}
    console = messages()
    with collected_warnings() as warned:
        scores, contrasts = _score(pairs, files, baselines, keys, convention, label, workers, problems)
    table = ScoreTable(convention, keys, scores)

    show_warnings(warned, console)
    _show(table, output(), rules.summary, len(pairs))
    objects = _shares(contrasts) if labels is not None else {}
    if objects:
        _show_objects(objects, output(), label)
    if json:
        more = {"objects": objects} if objects else {}
        write_json(json, table.to_dict() | more | {"problems": [problem._asdict() for problem in problems]})
    for path, text in ((csv, table.csv), (markdown, table.markdown), (latex, table.latex)):
        if path:
            write_text(path, text())
    if plot:
        table.plot(plot)
    if problems:
        show_problems(problems, console)
        raise typer.Exit(1)


def _methods(fused: Path | None, methods: list[str]) -> dict[str, Path]:
    folders = {fused.resolve().name: fused} if fused else {}
    for text in methods:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder:
            raise ConfigError(f"--method '{text}' must be NAME=DIR, for example --method CDDFuse=results/cddfuse")
        if name in folders:
            raise ConfigError(f"two methods are called '{name}'; give each its own name")
        folders[name] = Path(folder)
    return folders


def _by_pair(folder: Path, pairs: list[PairPaths], method: str, problems: list[Problem]) -> dict[str, Path]:
    """Fused file of each pair: the same stem, or the stem followed by the method's name (`a_CDDFuse.png`)."""
    stems = {file.stem.lower(): file for file in list_images(folder)}
    found = {}
    for pair in pairs:
        names = (pair.name, f"{pair.name}_{method}", f"{pair.name}_{folder.name}")
        file = next((stems[name.lower()] for name in names if name.lower() in stems), None)
        if file:
            found[pair.name] = file
        else:
            message = f"'{folder}' has no fused image '{pair.name}'; add it or take the pair away"
            problems.append(Problem("missing file", f"{method}: {pair.name}", message))
    return found


def _score(
    pairs: list[PairPaths],
    files: dict[str, dict[str, Path]],
    baselines: bool,
    keys: tuple[str, ...],
    convention: str,
    label: int,
    workers: int,
    problems: list[Problem],
) -> tuple[Scores, dict[str, "ContrastScores"]]:
    """Score all methods on all pairs in threads; what cannot be scored is added to `problems`."""
    import torch

    from tectum.arrays import luma
    from tectum.evaluation import score_image
    from tectum.metrics import ContrastScores, object_contrasts, objects_of_class
    from tectum.metrics.baselines import BASELINES
    from tectum.models.base import luminance

    trivial = BASELINES if baselines else {}
    methods: Scores = {name: {} for name in (*files, *trivial)}
    contrasts = {name: ContrastScores() for name in methods}

    def one(pair: PairPaths) -> list[tuple[str, Found | InputError]]:
        results: list[tuple[str, Found | InputError]] = []
        try:
            read = read_pair(pair)
        except InputError as error:
            return [(pair.name, error)]
        visible, infrared = read.visible.transpose(2, 0, 1), read.infrared[None]
        objects = [] if read.label is None else objects_of_class(read.label, label)
        light, heat = luminance(torch.from_numpy(visible)[None]), torch.from_numpy(infrared)[None]
        fused: dict[str, Callable[[], Float]] = {
            name: lambda path=found[pair.name]: read_visible(path).transpose(2, 0, 1)  # type: ignore[misc]
            for name, found in files.items()
            if pair.name in found
        }
        fused |= {name: lambda fuse=fuse: fuse(light, heat)[0].numpy() for name, fuse in trivial.items()}  # type: ignore[misc]
        for name, image in fused.items():
            try:
                made = image()
                values = score_image(made, visible, infrared, metrics=keys, convention=convention)
                grey = luma(*made) if len(made) == 3 else made[0]
                found = object_contrasts(grey, luma(*visible), infrared[0], objects) if objects else []
            except InputError as error:
                results.append((f"{name}: {pair.name}", error))
            else:
                results.append((name, (values, found)))
        return results

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))  # the workers share the cores
    try:
        with progress("scoring", len(pairs), messages()) as advance, ThreadPoolExecutor(workers) as pool:
            for pair, results in zip(pairs, pool.map(one, pairs), strict=True):
                for name, result in results:
                    if isinstance(result, InputError):
                        problems.append(Problem("not scored", name, str(result)))
                    else:
                        methods[name][pair.name] = result[0]
                        contrasts[name].update(result[1])
                advance()
    finally:
        torch.set_num_threads(threads)
    return methods, contrasts


def _shares(contrasts: dict[str, "ContrastScores"]) -> dict[str, dict[str, float]]:
    """Number of objects and shares kept and hidden, by method; of methods of which there is an object."""
    return {
        name: {key: float(value) for key, value in scores.compute().items()}
        for name, scores in contrasts.items()
        if scores.counts[0]
    }


def _show_objects(objects: dict[str, dict[str, float]], console: Console, label: int) -> None:
    title = f"objects of class {label} that stand out in a source; kept: with 0.7 of that, hidden: below 10 levels"
    shown = Table(title=title, title_justify="left")
    shown.add_column("method")
    for head in ("objects", "kept % ↑", "hidden % ↓"):
        shown.add_column(head, justify="right")
    for name, row in objects.items():
        shown.add_row(name, f"{row['objects']:.0f}", f"{100 * row['kept']:.1f}", f"{100 * row['hidden']:.1f}")
    console.print(shown)


def _show(table: "ScoreTable", console: Console, summary: str, pairs: int) -> None:
    shown = Table(title=f"mean over {pairs} pairs; convention {table.convention}: {summary}", title_justify="left")
    shown.add_column("method")
    for head in table.heads():
        shown.add_column(head, justify="right")
    for row in table.rows("[bold green]{}[/]"):
        shown.add_row(*row)
    console.print(shown)
