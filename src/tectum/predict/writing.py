"""Results as PNG files."""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from tectum.data.datasets import Problem
from tectum.data.pair import Pair, PairPaths
from tectum.files import atomic_path
from tectum.predict.colour import to_bytes
from tectum.predict.predictor import Prediction, Predictor
from tectum.viz import overlay, panel

ITEMS = ("fused", "labels", "confidence", "overlay", "panel")
"""What can be written of a result; confidence in 8 bits, where 255 is certain."""

_WRITERS = 2
# zlib's default of 6 takes more than twice as long and saves 2 % of the size.
_PNG_LEVEL = 4


def write_results(
    predictor: Predictor,
    pairs: list[PairPaths],
    out: Path,
    items: Iterable[str],
    *,
    batch: int,
    read: Callable[[PairPaths], Pair],
    advance: Callable[[], None] = lambda: None,
) -> tuple[list[PairPaths], list[Problem]]:
    """Fuse `pairs` and write `items` of each to OUT/ITEM/NAME.png, encoding in threads beside the network.

    Args:
        predictor: makes the results.
        pairs: with distinct names.
        out: folder of the results; files of the same name are replaced, each atomically.
        items: of `ITEMS`.
        batch, read: as for `Predictor.stream`.
        advance: called once for each pair that is done with, well or not.

    Returns:
        What was written completely and what failed, each in the order of `pairs`.
    """
    written: list[PairPaths] = []
    problems: list[Problem] = []
    pending: deque[tuple[PairPaths, Future[None]]] = deque()

    with ThreadPoolExecutor(_WRITERS) as pool:

        def collect(limit: int) -> None:
            while len(pending) > limit:
                paths, future = pending.popleft()
                try:
                    future.result()
                except OSError as error:
                    problems.append(Problem("not written", paths.name, f"the result could not be written: {error}"))
                else:
                    written.append(paths)
                advance()

        for one in predictor.stream(pairs, batch=batch, read=read):
            if isinstance(one, Problem):
                problems.append(one)
                advance()
            else:
                pending.append((one.paths, pool.submit(_write, predictor, one, out, items)))
                collect(_WRITERS)  # what waits to be written lies in memory
        collect(0)
    return written, problems


def _write(predictor: Predictor, prediction: Prediction, out: Path, items: Iterable[str]) -> None:
    for item, picture in _pictures(predictor, prediction, items).items():
        write_png(picture, out / item / f"{prediction.paths.name}.png")


def write_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG file atomically."""
    with atomic_path(path) as temporary:
        picture.save(temporary, compress_level=_PNG_LEVEL)


def _pictures(predictor: Predictor, prediction: Prediction, items: Iterable[str]) -> dict[str, Image.Image]:
    """The pictures called `items` of one result."""
    result = prediction.result
    made: dict[str, Image.Image] = {}
    tinted = overlay(result.fused, result.labels, predictor.palette) if {"overlay", "panel"} & set(items) else None
    for item in items:
        if item == "fused":
            made[item] = Image.fromarray(result.fused)
        elif item == "labels":
            made[item] = Image.fromarray(result.labels)
        elif item == "confidence":
            made[item] = Image.fromarray(to_bytes(result.confidence))
        elif tinted is not None and item == "overlay":
            made[item] = Image.fromarray(tinted)
        elif tinted is not None:
            made[item] = panel(
                prediction.pair.visible,
                prediction.pair.infrared,
                result.fused,
                tinted,
                class_names=predictor.class_names,
                palette=predictor.palette,
            )
    return made
