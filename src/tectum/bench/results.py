"""The numbers of a benchmark, and how they are made of what was measured; see benchmarks/README.md for the contract."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tectum.predict import Result

REFERENCES = ("published", "module")
"""Rows that the others are compared with: the first of them that has numbers. They always run whole."""

FORMAT = 1
"""Number of the JSON's layout, raised when a key changes its meaning."""


@dataclass(frozen=True)
class Timing:
    """Repeated times of one thing, in seconds, in the order of measuring, and their spread."""

    median: float
    lower_quartile: float
    upper_quartile: float
    minimum: float
    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Timing":
        lower, upper = np.quantile(samples, (0.25, 0.75))
        return cls(statistics.median(samples), float(lower), float(upper), min(samples), tuple(samples))


@dataclass(frozen=True)
class Throughput:
    """Folder mode: PNG files to fused and labels as PNG files, `pairs` of them once, with all overlapping work."""

    pairs: int
    pairs_per_second: float


@dataclass(frozen=True)
class Agreement:
    """How a result differs from the reference's on the same pair.

    Attributes:
        fused_max: largest difference of the fused luminance, in grey levels of 1/255.
        fused_p999: 99.9th percentile of the same.
        labels: share of the pixels with the same label.
    """

    fused_max: float
    fused_p999: float
    labels: float

    @classmethod
    def of(cls, result: "Result", reference: "Result") -> "Agreement":
        difference = 255 * np.abs(result.luminance - reference.luminance)
        return cls(
            float(difference.max()),
            float(np.percentile(difference, 99.9)),
            float((result.labels == reference.labels).mean()),
        )


@dataclass(frozen=True)
class Rates:
    """What this machine computes at most in float32, in 10^9 operations per second.

    Attributes:
        threads: of torch.
        product: of matrix products, two of 1024x1024.
        convolution: of 3x3 convolutions, 128 channels to 128 at 56x56.
    """

    threads: int
    product: float
    convolution: float

    @property
    def highest(self) -> float:
        return max(self.product, self.convolution)


@dataclass(frozen=True)
class Row:
    """One way to run the network at one size, in a process of its own.

    Attributes:
        name: "published", "module", "torch", "compile", "onnx", "openvino", "openvino bfloat16" or
            "openvino int8".
        reason: why there are no numbers; None where there are.
        skipped: there are none since memory would not do.
        first_seconds: the first run, with what a runtime does once for a size; not part of `latency`.
        latency: of one pair in memory, from arrays to the result at the pair's own size.
        outside: share of `latency` outside the network: padding, colour, labels. Median over the runs.
        tiles: into which the image was cut; 1 for none.
        bands: the image ran whole, but in bands of rows, to need less memory.
        peak_bytes: most memory that the process held until the end of the latency runs, loading included; None where
            the system does not tell.
        throughput: None where folder mode was not asked for.
        speed_up: the reference's median latency divided by this one's; above 1 is faster than the reference.
        limit_share: `Group.least_seconds` divided by the median latency; None for tiles.
        agreement: with the reference, on `Group.pair`.
    """

    name: str
    reason: str | None = None
    skipped: bool = False
    first_seconds: float | None = None
    latency: Timing | None = None
    outside: float | None = None
    tiles: int | None = None
    bands: bool | None = None
    peak_bytes: int | None = None
    throughput: Throughput | None = None
    speed_up: float | None = None
    limit_share: float | None = None
    agreement: Agreement | None = None

    @property
    def failed(self) -> bool:
        """Whether it should have given numbers and did not."""
        return self.reason is not None and not (self.skipped and self.name in REFERENCES)


@dataclass(frozen=True)
class Group:
    """All rows of one model at one size.

    Attributes:
        model: name of the network.
        weights: "shipped", "saved", or "random" for an architecture without weights.
        width, height: of the pair, in pixels.
        pair: on which the rows are measured and compared.
        in_turn: all rows were alive together and asked in turn, round by round; otherwise one after another.
        reference: name of the row with which the others are compared; None where it has no numbers.
        gigaflops: 10^9 operations of one whole pair (a multiplication and an addition count as two): "published"
            (unless its options are not), "module", "folded".
        rates: this machine's limit, measured in the same rounds; medians.
        least_seconds: what "folded" takes at the higher of the rates.
        rows: in the order of measuring.
    """

    model: str
    weights: str
    width: int
    height: int
    pair: str
    in_turn: bool
    reference: str | None
    gigaflops: dict[str, float]
    rates: Rates
    least_seconds: float
    rows: tuple[Row, ...]


def limit_share(least_seconds: float, row_seconds: float, tiles: int) -> float | None:
    """Share of the machine's limit that a row attains; None for tiles, which do not do the work that was counted."""
    return least_seconds / row_seconds if tiles == 1 else None
