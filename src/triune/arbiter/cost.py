"""Estimates of how long a unit takes for a batch, from the batches that it ran."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

_WEIGHT: Final = 0.2
"""The weight of the newest batch in the moving average of its size class."""

_MOST_RATIO: Final = 3
"""A batch counts as at most this many times the mean of its size class: other programs may have disturbed it, and one
such batch must not make a class look slow.
"""

_NUM_FIRST: Final = 3
"""Until a size class has had this number of batches, its estimate is the time of its fastest batch: the first batches
allocate memory, and other programs may have disturbed them.
"""

_MOST_KNOWN: Final = 64
"""Estimates for at most this many batch sizes are kept, since clients choose the sizes."""

STALE: Final = 16
"""A size that has not occurred for this number of batches is estimated from other sizes again, unless another number is
given.
"""


@dataclass(slots=True)
class _Mean:
    """The batches of one size class: their mean time, their mean number of elements, their number, and the index of the
    last one.
    """

    ns: float
    num_elements: float
    count: int
    last: int


class BatchCost(NamedTuple):
    """How long batches of one size class took.

    Attributes:
        num_elements: their mean number of input elements.
        ns: their mean time, in ns.
    """

    num_elements: float
    ns: float


class CostEstimate:
    """The run time of batches by size: moving averages for each power of two of the number of input elements.

    Attributes:
        num_batches: the number of batches that were recorded.
    """

    def __init__(self, stale_after: float = STALE) -> None:
        """Make an estimate of a worker that has run nothing. A size that has not occurred for `stale_after` batches is
        estimated from other sizes again.
        """
        self.num_batches = 0
        self._stale_after = stale_after
        self._means: dict[int, _Mean] = {}
        # The estimates that were made since the last batch. They are kept because many decisions ask for the same few
        # sizes.
        self._known: dict[int, float] = {}

    def record(self, num_elements: int, duration_ns: int) -> None:
        """Record that a batch of `num_elements` took `duration_ns`."""
        self.num_batches += 1
        self._known.clear()
        size, num_elements = num_elements.bit_length(), max(1, num_elements)
        mean = self._means.get(size)
        if mean is None:
            self._means[size] = _Mean(duration_ns, num_elements, 1, self.num_batches)
            return
        if mean.count >= _NUM_FIRST:
            mean.ns += _WEIGHT * (min(duration_ns, _MOST_RATIO * mean.ns) - mean.ns)
            mean.num_elements += _WEIGHT * (num_elements - mean.num_elements)
        elif duration_ns / num_elements < mean.ns / mean.num_elements:
            mean.ns, mean.num_elements = duration_ns, num_elements
        mean.count += 1
        mean.last = self.num_batches

    def costs(self) -> list[BatchCost]:
        """The times so far, one for each size class with at least _NUM_FIRST batches, the latest last."""
        known = sorted(self._means.values(), key=lambda each: each.last)
        return [BatchCost(each.num_elements, each.ns) for each in known if each.count >= _NUM_FIRST]

    def adopt(self, costs: Iterable[BatchCost]) -> None:
        """Begin with the times that another estimate of the same model and unit had (`costs`), before any batch has
        run. They count as _NUM_FIRST batches each, and the batches that follow correct them.
        """
        for each in costs:
            self.num_batches += _NUM_FIRST
            size = round(each.num_elements).bit_length()
            self._means[size] = _Mean(each.ns, each.num_elements, _NUM_FIRST, self.num_batches)
        for mean in self._means.values():
            mean.last = self.num_batches

    def knows(self, num_elements: int) -> bool:
        """Whether at least _NUM_FIRST batches of about `num_elements` were recorded."""
        mean = self._means.get(num_elements.bit_length())
        return mean is not None and mean.count >= _NUM_FIRST

    def of(self, num_elements: int) -> float:
        """The estimated time of a batch of `num_elements`, in nanoseconds.

        It is scaled from the nearest known size. If no size is known it is 0, so that the worker is chosen and
        measured.
        """
        known = self._known.get(num_elements)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[num_elements] = self._estimate(num_elements)
        return known

    def _estimate(self, num_elements: int) -> float:
        size, stale = num_elements.bit_length(), self.num_batches - self._stale_after
        own = self._means.get(size)
        if own is not None and own.last > stale and own.count >= _NUM_FIRST:
            return own.ns / own.num_elements * (num_elements or 1)
        others = {each: mean for each, mean in self._means.items() if mean.last > stale}
        own = others.pop(size, None)
        if own is not None:
            # Its first batches may have been disturbed, such as by kernels that were compiled for their shape. It would
            # never get another batch if that counted for more than what other sizes took.
            others = {each: mean for each, mean in others.items() if mean.count >= _NUM_FIRST}
        nearest = [others[each] for each in sorted(others, key=lambda each: (each - size) ** 2)[:1]]
        if own is not None:
            nearest.append(own)
        return min((each.ns / each.num_elements for each in nearest), default=0.0) * (num_elements or 1)
