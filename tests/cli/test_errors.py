"""What goes wrong ends with one sentence that names the file and the fix, and the right exit code."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tectum import __version__
from tectum.cli.commands import COMMANDS, load


def fuse(run_tectum, folder, weights, *more):
    return run_tectum(
        "fuse",
        "--visible",
        folder / "vi",
        "--infrared",
        folder / "ir",
        "--out",
        folder / "out",
        "--model",
        weights,
        *more,
    )


def missing_twin(visible, infrared):
    infrared.unlink()
    return "has no infrared twin"


def unequal_sizes(visible, infrared):
    Image.new("L", (32, 40)).save(infrared)
    return "is 32x32 but"


def packed_file_as_infrared(visible, infrared):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 4), np.uint8)).save(infrared)
    return "fourth channel that varies"


def thirty_two_bit_integers(visible, infrared):
    infrared.unlink()
    Image.fromarray(np.full((32, 32), 70000, np.int32)).save(infrared.with_suffix(".tif"))
    return "32-bit integers"


def not_a_number(visible, infrared):
    pixels = np.full((32, 32), 0.5, np.float32)
    pixels[3, 4] = np.nan
    infrared.unlink()
    Image.fromarray(pixels).save(infrared.with_suffix(".tif"))
    return "1 NaN or infinite"


def zero_bytes(visible, infrared):
    visible.write_bytes(b"")
    return "is empty (0 bytes)"


def truncated(visible, infrared):
    visible.write_bytes(visible.read_bytes()[:-400])
    return "truncated or damaged"


def no_image(visible, infrared):
    visible.write_text("hello")
    return "is not an image"


def too_small(visible, infrared):
    for file, mode in ((visible, "RGB"), (infrared, "L")):
        Image.new(mode, (15, 32)).save(file)
    return "15x32 pixels; the smallest size is 16x16"


@pytest.mark.parametrize(
    "damage",
    [
        missing_twin,
        unequal_sizes,
        packed_file_as_infrared,
        thirty_two_bit_integers,
        not_a_number,
        zero_bytes,
        truncated,
        no_image,
        too_small,
    ],
)
@pytest.mark.slow
def test_a_bad_pair_is_named_and_the_good_one_is_fused(damage, tmp_path, weights, run_tectum, write_pair):
    write_pair(tmp_path, "good.png")
    message = damage(*write_pair(tmp_path, "bad.png"))
    result = fuse(run_tectum, tmp_path, weights)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "bad" in result.stderr
    assert "good" not in result.stderr
    assert "fused 1 of 2 pairs" in result.stdout
    assert [path.name for path in (tmp_path / "out" / "fused").iterdir()] == ["good.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--model", "virmfs_b9"), 2, "there are no weights 'virmfs_b9'"),
        (("--model", "virmfs_b0"), 2, "is an architecture without weights"),
        (("--model", "."), 1, "has no config.json"),
        (("--save", "fused,colour"), 2, "--save cannot write 'colour'; choose from fused, labels, confidence"),
        (("--save", ","), 2, "choose from fused, labels, confidence, overlay, panel"),
        (("--device", "abacus"), 2, "device 'abacus' is not usable"),
        (("--infrared-range", 5, 5), 2, "low < high"),
        (("--out", "file/in/the/way"), 2, "cannot write to"),
        (("--json", "file/report.json"), 2, "cannot write to"),
        (("--visible", "nowhere"), 1, "'nowhere' does not exist"),
        (("--visible", "*.jpg"), 1, "no image matches"),
        (("--batch", 0), 2, "--batch"),
        (("--colour", "yes"), 2, "--colour"),
        (("--infrared-range", "cold", "hot"), 2, "--infrared-range"),
    ],
)
def test_wrong_arguments(arguments, code, message, tmp_path, weights, run_tectum, write_pair, monkeypatch):
    write_pair(tmp_path, "a.png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    result = fuse(run_tectum, tmp_path, weights, *arguments)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not list((tmp_path / "out").glob("*/*"))


def test_no_arguments(run_tectum):
    assert run_tectum("fuse").exit_code == 2
    assert run_tectum("nonsense").exit_code == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_their_own_help_says(name):
    assert " ".join(load(name).help.split()).startswith(COMMANDS[name])


def test_version(run_tectum):
    result = run_tectum("--version")
    assert result.exit_code == 0
    assert result.stdout == f"tectum {__version__}\n"


def test_as_a_process(tmp_path):
    command = [sys.executable, "-m", "tectum", "fuse", "--visible", "x", "--infrared", "y", "--out", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        "error: 'x' does not exist; give an image, a folder, a quoted glob or a .txt list of paths\n"
    )


def test_help_does_not_import_torch():
    code = (
        "import sys; from typer.testing import CliRunner; from tectum.cli import app; "
        "result = CliRunner().invoke(app, ['--help']); sys.exit(result.exit_code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
