"""Errors that tectum raises on purpose.

Every message is one sentence or two that name what was found (with its file) and what to do about it. The command
line prints such a message without a traceback; any other exception is a bug in tectum.
"""


class TectumError(Exception):
    """Base of all errors that tectum raises on purpose."""


class InputError(TectumError):
    """An image, label map, folder or array that cannot be used as it is."""


class ConfigError(TectumError):
    """An unknown or contradictory name, key, option or value."""


class WeightsError(TectumError):
    """Weights that are missing, damaged, or do not fit the network."""


class MissingExtraError(TectumError):
    """An optional feature was asked for and its packages are not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the '{extra}' extra: pip install 'tectum[{extra}]'")
