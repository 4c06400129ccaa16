"""Figures of hardware: a number with its unit, its source, and the kind of the source."""

from dataclasses import dataclass
from enum import Enum


class FigureKind(Enum):
    """The kind of a figure's source. The value is its name in `chips.toml` and in JSON."""

    PUBLISHED = "published"
    """The source is the maker of the hardware."""
    MEASURED = "measured"
    """The figure was measured on this machine, or by those whom the source names."""
    CLAIMED = "claimed"
    """The source does not say how the figure was measured, or derived it from other figures."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its unit and its source.

    Attributes:
        value: the number; for a chip that is sold in several configurations, the figure of the largest one.
        unit: "TFLOPS" and "TOPS" (10^12 a second), "GB/s" (10^9 bytes), "GB" and "MB" (2^30 and 2^20 bytes), "ms",
            "W", "cores".
        kind: the kind of the source.
        source: the page, paper or file that states it, or the machine and date of the measurement.
        basis: for TFLOPS and TOPS, the datatype of the operations, such as "fp16" or "int8"; else empty.
        smaller: the values of the chip's smaller configurations, ascending.
        low: the smallest value that was reported, if reports differ.
        high: the largest value that was reported, if reports differ.
        note: a caveat for its use, such as the chip of the generation on which it was measured.
    """

    value: float
    unit: str
    kind: FigureKind
    source: str
    basis: str = ""
    smaller: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact about hardware that is a word, not a number.

    Attributes:
        value: one word, such as "SME".
        kind: the kind of the source.
        source: the page, paper or file that states it.
        note: a caveat for its use.
    """

    value: str
    kind: FigureKind
    source: str
    note: str = ""
