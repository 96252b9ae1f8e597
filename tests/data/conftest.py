from collections.abc import Callable
from pathlib import Path

import pytest
from layouts import LAYOUTS


@pytest.fixture
def layout(tmp_path: Path) -> Callable[[str], Path]:
    """Write the layout of that name and return its root."""

    def write(name: str) -> Path:
        root = tmp_path / name
        LAYOUTS[name](root)
        return root

    return write
