import os
from pathlib import Path

import pytest

# Importing ONNX Runtime starts its telemetry.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# The real pairs and the golden arrays lie beside the checkout, or where TECTUM_SHARED says.
SHARED = Path(os.environ.get("TECTUM_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"the shared folder '{name}' is not beside this checkout (or at $TECTUM_SHARED)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Exports of the tests go to a folder of their own, not to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real infrared-visible pairs; the test is skipped where it is absent."""
    return _folder("data")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of arrays computed by the authors' networks; the test is skipped where it is absent."""
    return _folder("golden")
