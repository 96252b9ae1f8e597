"""Work on many files in threads."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Progress = Callable[[], None]
"""Called once for every finished pair or file."""

In = TypeVar("In")
Out = TypeVar("Out")


def each(
    function: Callable[[In], Out], items: Sequence[In], workers: int | None, on_item: Progress | None
) -> list[Out]:
    """Apply `function` to every item in threads; results in the order of the items."""
    results = []
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for result in pool.map(function, items):
            results.append(result)
            if on_item is not None:
                on_item()
    return results
