"""What every engine is: arrays in, arrays out, from as many threads at once as like to. An engine chooses nothing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tectum.arrays import Float
from tectum.engines.description import read_description
from tectum.errors import InputError, MissingExtraError, WeightsError

EXTRAS = {"onnx": "export", "openvino": "openvino"}
"""The optional extra that each engine of exported files needs."""


class Raw(NamedTuple):
    """A network's output as arrays: `fused` float32 (B, H, W), not clamped, and `logits` float32 (B, K, H, W)."""

    fused: Float
    logits: Float


class Bands(Protocol):
    """Runs large images whole, in bounded memory."""

    def __call__(self, visible: Float, infrared: Float, rows: int) -> Iterator[Raw]:
        """What `Engine.run` gives, up to rounding, in bands of so many rows, from top to bottom.

        Args:
            visible, infrared: as for `Engine.run`.
            rows: height of a band, a multiple of `stride`. Memory grows with it; the last band may be less high.

        Raises:
            InputError: there is not enough memory.
        """


class Engine(Protocol):
    """Runs one network, from as many threads at once as like to.

    Attributes:
        runtime: "torch", "compile", "onnx" or "openvino".
        name: what the network calls itself, for messages.
        classes: number of classes K.
        stride: height and width of the input must be multiples of it.
        metadata: what the weights say of themselves (`class_names`, `palette`, ...), and `architecture` where it is
            one of tectum's.
        bytes_per_pixel: what the network declares of its memory, by runtime and for "bands"; see `FusionSegmenter`.
    """

    runtime: str
    name: str
    classes: int
    stride: int
    metadata: dict[str, Any]
    bytes_per_pixel: Mapping[str, int]

    @property
    def bands(self) -> Bands | None:
        """The way to run large images whole; None where there is none, so that they have to be cut."""

    def run(self, visible: Float, infrared: Float) -> Raw:
        """Run visible (B, 3, H, W) and infrared (B, 1, H, W), float32 in [0, 1], H and W multiples of `stride`.

        Raises:
            InputError: there is not enough memory.
        """


class FileEngine:
    """What the engines of exported files have in common; `text` is the description in the file's metadata.

    Raises:
        WeightsError: the file is of another origin.
    """

    bands = None

    def __init__(self, file: Path, text: str | None) -> None:
        self.metadata = read_description(text, file)
        self.name: str = self.metadata["name"]
        self.classes: int = self.metadata["classes"]
        self.stride: int = self.metadata["stride"]
        self.bytes_per_pixel: Mapping[str, int] = self.metadata["bytes_per_pixel"]


def missing_runtime(error: ModuleNotFoundError, package: str, runtime: str) -> Exception:
    """The error that a runtime is not installed, unless it is one of its own modules that is missing."""
    return MissingExtraError(f"backend {runtime}", EXTRAS[runtime]) if error.name == package else error


def unreadable(file: Path, error: Exception) -> WeightsError:
    """The error that a runtime cannot read a file."""
    return WeightsError(
        f"'{file}' cannot be read ({reason(error)}): it is damaged, incomplete, or not written by tectum export; "
        "export it again"
    )


def reason(error: Exception, line: int = -1) -> str:
    """One line of a message; by default the last, since the runtimes name their own sources in the lines before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[line].rstrip("!.") if lines else type(error).__name__


@contextmanager
def memory_errors(device: str, visible: Float) -> Iterator[None]:
    """Raise a runtime's lack of memory as InputError; all else passes."""
    try:
        yield
    except Exception as error:  # the runtimes' exceptions have no common base
        if not _is_out_of_memory(error):
            raise
        raise _out_of_memory(device, visible) from None


def _is_out_of_memory(error: Exception) -> bool:
    # torch raises its own class on accelerators; the CPU's allocators are known by their messages alone.
    text = str(error).lower()
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or any(sign in text for sign in ("can't allocate memory", "failed to allocate", "bad_alloc"))


def _out_of_memory(device: str, visible: Float) -> InputError:
    count, _, height, width = visible.shape
    return InputError(
        f"out of memory on {device} for {count} pair(s) of {width}x{height}: "
        "use a smaller batch, smaller images, or another device"
    )
