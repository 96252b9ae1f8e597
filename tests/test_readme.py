"""The README's examples, run as a reader would run them."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tectum.cli import app
from tectum.scenes import write_scenes

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = write_scenes("MSRS", 1, size=(96, 128), split="test")
    Path("vi").mkdir()
    Path("ir").mkdir()
    for target in ("vi/a.png", "visible.png"):
        Path(target).write_bytes(pairs[0].visible.read_bytes())
    for target in ("ir/a.png", "infrared.png"):
        Path(target).write_bytes(pairs[0].infrared.read_bytes())
    return tmp_path


@pytest.mark.slow
def test_python_example(folder):
    exec(compile(blocks("python"), "README.md", "exec"), {})


def test_command_examples(folder):
    lines = [line for line in blocks("bash").splitlines() if line.startswith(("tectum fuse", "tectum eval"))]
    assert len(lines) == 2
    for line in lines:
        result = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
        assert result.exit_code == 0, result.output
    assert (folder / "out" / "fused" / "a.png").is_file()


def test_links_lead_somewhere():
    root = Path(__file__).parents[1]
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README) + re.findall(r'src="(?!https?:)([^"]+)"', README)
    assert targets
    assert not [target for target in targets if not (root / target).exists()]
