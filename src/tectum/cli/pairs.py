"""Pairs for commands that can do without."""

from tectum.cli.console import messages, show_warnings
from tectum.data.pair import PairPaths
from tectum.errors import ConfigError, InputError
from tectum.predict import find_pairs


def optional_pairs(visible: str | None, infrared: str | None) -> list[PairPaths]:
    """The pairs of --visible and --infrared, which `tectum fuse` explains; none where neither is given.

    Images without a twin are named in a warning.

    Raises:
        ConfigError: one of the two is missing.
        InputError: there is no pair.
    """
    if visible is None and infrared is None:
        return []
    if visible is None or infrared is None:
        raise ConfigError("pairs need both --visible and --infrared")
    pairs, unmatched = find_pairs(visible, infrared)
    show_warnings([problem.message for problem in unmatched], messages())
    if not pairs:
        raise InputError(f"'{visible}' and '{infrared}' have no pair; images are paired by their names")
    return pairs
