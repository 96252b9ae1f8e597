import numpy as np
import pytest
from PIL import Image

import tectum.cli.demo
import tectum.predict
from tectum import DEFAULT_WEIGHTS, list_weights
from tectum.scenes import CONDITIONS

ITEMS = ("inputs/vi", "inputs/ir", "fused", "labels", "overlay", "panel")


@pytest.fixture
def shipped(weights, monkeypatch):
    """Stand in for the shipped weights where a checkout has none."""
    if DEFAULT_WEIGHTS not in list_weights():
        predictor = tectum.predict.Predictor(weights)
        monkeypatch.setattr(tectum.cli.demo, "Predictor", lambda *_, **__: predictor)


@pytest.mark.slow
@pytest.mark.usefixtures("shipped")
def test_demo_writes_what_it_says(tmp_path, run_tectum):
    result = run_tectum("demo", "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    for item in ITEMS:
        assert sorted(path.stem for path in (tmp_path / "demo" / item).iterdir()) == sorted(CONDITIONS)
        assert item in result.stdout
    assert str(tmp_path / "demo") in result.stdout
    with Image.open(tmp_path / "demo" / "demo.png") as sheet:
        assert sheet.width > 4 * 640
        assert sheet.height > 4 * 480
        pixels = np.asarray(sheet)
    # Rows are scenes and columns are pictures: the first visible image lies in the corner, below a thin caption.
    first = np.asarray(Image.open(tmp_path / "demo" / "inputs" / "vi" / f"{CONDITIONS[0]}.png"))
    assert any(np.array_equal(pixels[top : top + 480, :640], first) for top in range(60))


def test_unknown_weights_are_named(tmp_path, run_tectum):
    result = run_tectum("demo", "--model", "nowhere", "--out", tmp_path)
    assert result.exit_code == 2
    assert "there are no weights 'nowhere'" in result.stderr


def test_unwritable_folder(tmp_path, run_tectum):
    (tmp_path / "file").write_text("")
    result = run_tectum("demo", "--out", tmp_path / "file" / "demo")
    assert result.exit_code == 2
    assert "cannot write to" in result.stderr
