import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tectum.scenes import write_scenes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two pairs, `max/` with their maximum and `grey/` with their mean, named with the method's name behind."""
    root = tmp_path_factory.mktemp("scenes")
    for pair in write_scenes(root, 2, size=(64, 80)):
        visible = np.asarray(Image.open(pair.visible).convert("L"))
        infrared = np.asarray(Image.open(pair.infrared))
        for name, fused, suffix in (
            ("max", np.maximum(visible, infrared), ""),
            ("grey", ((visible.astype(int) + infrared) // 2).astype(np.uint8), "_grey"),
        ):
            (root / name).mkdir(exist_ok=True)
            Image.fromarray(fused).save(root / name / f"{pair.name}{suffix}.png")
    return root


@pytest.fixture
def sources(made):
    return ("--visible", made / "train" / "vi", "--infrared", made / "train" / "ir")


@pytest.mark.slow
def test_scores_methods_beside_baselines(made, sources, tmp_path, run_tectum):
    files = {name: tmp_path / f"scores.{name}" for name in ("json", "csv", "markdown", "latex")}
    options = [part for name, path in files.items() for part in (f"--{name}", path)]
    result = run_tectum(
        "metrics", *sources, "--fused", made / "max", "--method", f"grey={made / 'grey'}", "--baselines", *options
    )
    assert result.exit_code == 0, result.output
    content = json.loads(files["json"].read_text())
    assert content["convention"] == "tectum"
    assert list(content["methods"]) == [
        "max", "grey", "visible", "infrared", "mean", "maximum", "Laplacian pyramid", "guided filter",
    ]  # fmt: skip
    assert len(content["images"]) == 2
    assert content["mean"] == content["methods"]["max"]["mean"]
    # The saved maximum and mean are the baselines of that name, up to the rounding of the saved luminance.
    for mine, theirs in (("max", "maximum"), ("grey", "mean")):
        mean = content["methods"][mine]["mean"]
        assert mean["sd"] == pytest.approx(content["methods"][theirs]["mean"]["sd"], rel=0.02)
    assert "| max |" in files["markdown"].read_text()
    assert files["latex"].read_text().startswith(r"\begin{tabular}")
    assert len(files["csv"].read_text().splitlines()) == 1 + 8 * 3


def test_workers_do_not_change_the_numbers(made, sources, tmp_path, run_tectum):
    contents = []
    for workers in (1, 3):
        path = tmp_path / f"{workers}.json"
        result = run_tectum("metrics", *sources, "--baselines", "--workers", workers, "--json", path)
        assert result.exit_code == 0, result.output
        contents.append(json.loads(path.read_text())["methods"])
    assert contents[0] == contents[1]


def test_convention_and_selection(made, sources, tmp_path, run_tectum):
    def mi(convention):
        path = tmp_path / "scores.json"
        options = ("--metrics", "mi,ssim", "--convention", convention, "--json", path)
        result = run_tectum("metrics", *sources, "--fused", made / "max", *options)
        assert result.exit_code == 0, result.output
        mean = json.loads(path.read_text())["mean"]
        assert list(mean) == ["mi", "ssim"]
        return mean["mi"]

    assert mi("cddfuse") == pytest.approx(mi("tectum") * np.log(2))


def test_missing_and_broken_images_are_listed_and_the_rest_is_scored(made, sources, tmp_path, run_tectum):
    shutil.copytree(made / "max", tmp_path / "some")
    first, second = sorted((tmp_path / "some").iterdir())
    first.unlink()
    result = run_tectum("metrics", *sources, "--fused", tmp_path / "some", "--json", tmp_path / "a.json")
    assert result.exit_code == 1
    assert f"has no fused image '{first.stem}'" in result.output
    assert list(json.loads((tmp_path / "a.json").read_text())["images"]) == [second.stem]
    second.write_bytes(b"")
    result = run_tectum("metrics", *sources, "--fused", tmp_path / "some")
    assert result.exit_code == 1
    assert second.name in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "there is nothing to score"),
        (("--method", "x"), "must be NAME=DIR"),
        (("--baselines", "--convention", "imagined"), "the conventions are tectum, vifb, matlab, cddfuse"),
        (("--baselines", "--metrics", "en,beauty"), "unknown metric 'beauty'"),
    ],
)
def test_wrong_usage(sources, run_tectum, options, message):
    result = run_tectum("metrics", *sources, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_sizes_that_differ_are_named(made, sources, tmp_path, run_tectum):
    (tmp_path / "small").mkdir()
    for file in (made / "max").iterdir():
        Image.open(file).resize((60, 60)).save(tmp_path / "small" / file.name)
    result = run_tectum("metrics", *sources, "--fused", tmp_path / "small")
    assert result.exit_code == 1
    assert "must have one size" in " ".join(result.output.split())


def test_objects_kept_and_hidden_are_counted(tmp_path, run_tectum):
    rng = np.random.default_rng(0)
    fog = rng.integers(180, 190, (64, 80), dtype=np.uint8)
    warm = rng.integers(40, 50, (64, 80), dtype=np.uint8)
    labels = np.zeros((64, 80), np.uint8)
    labels[20:44, 30:42] = 2
    warm[labels == 2] = 170
    shown = np.where(labels == 2, 255, fog)
    folders = {"vi": fog, "ir": warm, "labels": labels, "max": np.maximum(fog, warm), "shown": shown}
    for name, image in folders.items():
        (tmp_path / name).mkdir()
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / name / "a.png")
    out = tmp_path / "scores.json"
    arguments = ["--visible", tmp_path / "vi", "--infrared", tmp_path / "ir", "--labels", tmp_path / "labels"]
    methods = [part for name in ("max", "shown") for part in ("--method", f"{name}={tmp_path / name}")]
    result = run_tectum("metrics", *arguments, *methods, "--metrics", "seam", "--json", out)
    assert result.exit_code == 0, result.output
    objects = json.loads(out.read_text())["objects"]
    assert objects == {
        "max": {"objects": 1, "kept": 0, "hidden": 1},
        "shown": {"objects": 1, "kept": 0, "hidden": 0},  # 70 levels of 125
    }
    assert "hidden % ↓" in result.output
    other = run_tectum("metrics", *arguments, *methods, "--metrics", "seam", "--label", "3")
    assert other.exit_code == 0, other.output
    assert "hidden" not in other.output
