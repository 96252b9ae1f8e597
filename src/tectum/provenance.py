"""What a result was made with: the commit, and versions of packages."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def commit() -> str | None:
    """Commit of the checkout that tectum runs from, with "-dirty" where files differ from it; None without one."""
    # A folder of installed packages may lie in the checkout of another project.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def package_version(package: str) -> str | None:
    """Version of an installed package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git answers about the folder of this file; None where it refuses or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
