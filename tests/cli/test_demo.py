import numpy as np
import pytest
from PIL import Image

import tectum.predict
from tectum import list_weights
from tectum.data.synthetic import CONDITIONS

ITEMS = ("inputs/vi", "inputs/ir", "fused", "labels", "overlay", "panel")


@pytest.fixture
def shipped(weights, monkeypatch):
    """Stand in for the shipped weights where a checkout has none."""
    if "virmfs_b0_msrs" not in list_weights():
        predictor = tectum.predict.Predictor(weights)
        monkeypatch.setattr(tectum.predict, "Predictor", lambda: predictor)


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
        # Rows are scenes and columns are pictures: the first one is the first visible image.
        with Image.open(tmp_path / "demo" / "inputs" / "vi" / f"{CONDITIONS[0]}.png") as visible:
            top = sheet.height - np.asarray(sheet).shape[0] + 34
            crop = np.asarray(sheet)[top : top + 480, :640]
            np.testing.assert_array_equal(crop, np.asarray(visible))


def test_unwritable_folder(tmp_path, run_tectum):
    (tmp_path / "file").write_text("")
    result = run_tectum("demo", "--out", tmp_path / "file" / "demo")
    assert result.exit_code == 2
    assert "cannot write to" in result.stderr
