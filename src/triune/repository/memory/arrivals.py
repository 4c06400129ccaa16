"""Predicts when a model will be used next, from its past uses.

The rule is the hybrid histogram policy's of "Serverless in the Wild" (Shahrad et al., USENIX ATC 2020, section 4.2):
the idle times between two uses are kept; the next use is expected between their 5th and their 99th percentile, each
with a margin of a tenth, if they are regular. The paper decides by a histogram whether they are regular. Here they are
if their standard deviation is at most their mean; random arrivals (a Poisson process) just reach that.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

_NS: Final = 1_000_000_000
_SAME_VISIT_NS: Final = 2 * _NS
"""Uses with no longer pause between them are one visit."""

_NUM_GAPS: Final = 32
_FEWEST_GAPS: Final = 3
_HEAD, _TAIL = 0.05, 0.99
_MARGIN: Final = 0.1


class ArrivalPattern:
    """The idle times of one model.

    Attributes:
        last_ns: when it was seen in use last; None if never.
    """

    __slots__ = ("_gaps", "last_ns")

    def __init__(self) -> None:
        self.last_ns: int | None = None
        self._gaps: deque[int] = deque(maxlen=_NUM_GAPS)

    @property
    def num_gaps(self) -> int:
        """How many idle times are kept."""
        return len(self._gaps)

    def see(self, now_ns: int) -> None:
        """The model is in use at `now_ns`."""
        if self.last_ns is not None and now_ns - self.last_ns > _SAME_VISIT_NS:
            self._gaps.append(now_ns - self.last_ns)
        self.last_ns = now_ns

    def window(self) -> tuple[int, int] | None:
        """The earliest and the latest time of the next use, in nanoseconds after the last; None if the idle times are
        too few or not regular.
        """
        gaps = sorted(self._gaps)
        if len(gaps) < _FEWEST_GAPS:
            return None
        mean = sum(gaps) / len(gaps)
        deviation = math.sqrt(sum((each - mean) ** 2 for each in gaps) / len(gaps))
        if deviation > mean:
            return None
        return int(_percentile(gaps, _HEAD) * (1 - _MARGIN)), int(_percentile(gaps, _TAIL) * (1 + _MARGIN))

    def needed_ns(self, now_ns: int) -> int | None:
        """When the model is needed next, at `now_ns` or later; None if that cannot be told, or was long ago."""
        window = self.window()
        if window is None or self.last_ns is None or now_ns > self.latest_ns():
            return None
        return max(now_ns, self.last_ns + window[0])

    def latest_ns(self) -> int:
        """The latest time at which the next use is expected; 0 if that cannot be told."""
        window = self.window()
        return self.last_ns + window[1] if window is not None and self.last_ns is not None else 0

    def likely_ns(self, now_ns: int) -> int:
        """When the model is likely to be needed: as `needed_ns`, or in as long a time as it has not been used."""
        needed_ns = self.needed_ns(now_ns)
        if needed_ns is not None:
            return needed_ns
        return now_ns + (now_ns - self.last_ns if self.last_ns is not None else now_ns)


def _percentile(values: Sequence[int], share: float) -> int:
    """The smallest of the sorted values that at least this share of them does not exceed."""
    return values[max(0, math.ceil(share * len(values)) - 1)]
