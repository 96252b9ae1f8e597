"""One version: the package's, the changelog's and the citation's fit together."""

import re
from importlib.metadata import version
from pathlib import Path

import tectum

ROOT = Path(__file__).parents[1]


def numbers(text):
    return tuple(map(int, text.split(".")[:3]))


def test_the_version_is_that_of_the_changelog_or_under_way_to_the_next():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    newest = headings[1]
    if ".dev" in tectum.__version__:
        assert numbers(tectum.__version__) > numbers(newest)
    else:
        assert tectum.__version__ == newest
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == newest


def test_the_installed_package_is_of_this_version():
    assert version("tectum") == tectum.__version__
