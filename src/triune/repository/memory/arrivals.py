"""Predicts when a model will be used next, from its past uses.

The rule is the hybrid histogram policy's of "Serverless in the Wild" (Shahrad et al., USENIX ATC 2020, section 4.2):
it keeps the idle times between two uses. If they are regular, the next use is expected between their 5th and 99th
percentiles, each with a margin of a tenth. The paper uses a histogram to decide whether idle times are regular. Here
they are regular if their standard deviation is at most their mean; for random arrivals (a Poisson process) the two are
equal.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

_NS: Final = 1_000_000_000
_SAME_VISIT_NS: Final = 2 * _NS
"""Uses with pauses of at most this long, in ns, count as one use."""

_NUM_GAPS: Final = 32
_FEWEST_GAPS: Final = 3
_HEAD, _TAIL = 0.05, 0.99
_MARGIN: Final = 0.1


class ArrivalPattern:
    """The idle times of one model.

    Attributes:
        last_ns: when the model was last seen in use; None if never.
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
        """Record that the model is in use at `now_ns`."""
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
        """The earliest time of the next expected use, at `now_ns` or later. None if there is no prediction, or if the
        predicted time has passed.
        """
        window = self.window()
        if window is None or self.last_ns is None or now_ns > self.latest_ns():
            return None
        return max(now_ns, self.last_ns + window[0])

    def latest_ns(self) -> int:
        """The latest time at which the next use is expected; 0 if there is no prediction."""
        window = self.window()
        return self.last_ns + window[1] if window is not None and self.last_ns is not None else 0

    def likely_ns(self, now_ns: int) -> int:
        """The time at which the model is likely to be needed: the result of `needed_ns`. If that is None, the model is
        expected to stay idle as long again as it has been idle until now.
        """
        needed_ns = self.needed_ns(now_ns)
        if needed_ns is not None:
            return needed_ns
        return now_ns + (now_ns - self.last_ns if self.last_ns is not None else now_ns)


def _percentile(values: Sequence[int], share: float) -> int:
    """The smallest of the sorted `values` such that at least the fraction `share` of them is less than or
    equal to it.
    """
    return values[max(0, math.ceil(share * len(values)) - 1)]
