"""Exports that are made once and kept."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tectum import __version__
from tectum.engines.base import Engine
from tectum.engines.open import open_export
from tectum.errors import WeightsError
from tectum.export import export
from tectum.export.files import versions
from tectum.weights import EXPORT_SUFFIXES, Source

_LAYOUT = 2  # of what a file says of itself: another one makes kept files anew

_log = logging.getLogger(__name__)


def cache_file(source: Source, format: str) -> Path | None:
    """Where the export of a model's weights is kept for the next time.

    It lies in $XDG_CACHE_HOME/tectum/exports, by default ~/.cache/tectum/exports, which can be deleted at any time. Its
    name holds a digest of the weights and of the versions of tectum and of the packages that write it, so that it is
    never out of date. None where one of the files of `source` is not there.

    Raises:
        MissingExtraError: the packages of the format are not installed.
    """
    if not all(file.is_file() for file in source.files):
        return None
    digest = hashlib.sha256(json.dumps([__version__, _LAYOUT, versions(format)]).encode())
    for file in source.files:
        digest.update(str(file.stat().st_size).encode())
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tectum" / "exports"
    return folder / f"{source.path.stem}-{digest.hexdigest()[:16]}{EXPORT_SUFFIXES[format]}"


def exported(source: Source, format: str) -> Engine:
    """The engine of exported weights; exports them if that has not been done, and keeps the file.

    Raises:
        ExportError: they cannot be exported.
        MissingExtraError: the packages of the format are not installed.
        WeightsError: the weights cannot be read.
    """
    file = cache_file(source, format)
    kept = open_kept(file)
    if kept is not None:
        return kept
    from tectum.models import load

    network = load(source.path)
    assert file is not None  # what can be loaded has a place in the cache
    with _writable(file.parent) as folder:
        _log.warning("exporting '%s' for backend %s, once; kept in %s", network.metadata["name"], format, folder)
        export(network, folder / file.name, format=format)
        return open_export(folder / file.name)


def open_kept(file: Path | None) -> Engine | None:
    """The engine of a kept file; None where there is none, or a damaged one, which is removed."""
    if file is None or not file.is_file():
        return None
    try:
        return open_export(file)
    except WeightsError:
        file.unlink()
        return None


@contextmanager
def _writable(folder: Path) -> Iterator[Path]:
    """Yield `folder`, or a temporary one where it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
    else:
        yield folder
