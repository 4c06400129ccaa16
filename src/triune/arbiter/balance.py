"""Divides pools of hardware between models, so that each computes where it is relatively best.

A model that runs alone takes the unit that answers soonest. If several models fill the hardware, that is wasteful: a
model that is twice as fast on the GPU as on the Neural Engine should use the GPU, and leave the Neural Engine to a
model that is as fast on both. Who should compute where is a linear program: the requests of each model are divided over
the pools, a request takes its time of a pool, and the time of the fullest pool is to be least. The dual program has a
price for each pool; the prices add up to 1, and each request goes where its time costs least. The prices are found by
exponentiated gradients (Kivinen and Warmuth, "Exponentiated gradient versus gradient descent for linear predictors",
1997): the price of a pool with too much work rises. The share of iterations in which a pool was the cheapest for a
model is the share of its requests that should go there.

Two things follow from the shares. A model leaves a pool where its share is next to nothing. And the models that stay
take turns of the length that their requests need there: turns of equal length would give half of a pool to a model that
can also compute elsewhere, while the requests of another have to wait for that pool.

While the pools are not full, nothing is divided.
"""

import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triune.arbiter.share import Share
from triune.core.units import Unit

_PERIOD_NS: Final = 50_000_000
"""The pools are divided anew after this time, in nanoseconds."""

_NUM_STEPS: Final = 16
"""The number of steps by which `Balance._divide` improves the prices of the pools in each update. An update begins with
the prices of the last one.
"""

_STEP: Final = 0.1
"""The step size of the price updates: the price of a pool is multiplied by exp(_STEP * load / demand). `load` is the
pool's load, and `demand` the load of all models together if each computes on its fastest unit.
"""

_MEMORY: Final = 0.8
"""The weight of the earlier divisions in the moving average of each model's parts; the newest division has the
remaining weight.
"""

_RATE_NS: Final = 1e9
"""The time, in nanoseconds, over which the rates of requests are averaged."""

_FULL: Final = 0.6
"""The pools count as full if the fullest one is busy for at least this part of the time."""

_MODELS: Final = 20
"""If more models than this share the pools, the pools are divided less often, in proportion to the number of models."""

_RARE: Final = 0.01e-9
"""Models with fewer requests a nanosecond than this (one in 100 s) are left out when the pools are divided."""

_LEAST_PRICE: Final = 1e-6

_LEAST_PART: Final = 0.03
"""A model leaves a pool to others that need it if less than this part of the model's requests should go there."""


class Demand:
    """A model's demand for hardware. Only one thread at a time may change it.

    Attributes:
        costs: the time of a request on each unit under load, in nanoseconds; units for which it is not known are left
            out.
        num_requests: the number of requests that it has received.
        has_waiting: whether more requests wait than can be started now.
        shares: the model's shares of pools.
        lock: guards the pools; None before the model has joined.
    """

    __slots__ = ("costs", "has_waiting", "lock", "num_requests", "shares")

    def __init__(self, costs: Callable[[], Mapping[Unit, float]]) -> None:
        """`costs`: see the attribute."""
        self.costs = costs
        self.num_requests = 0
        self.has_waiting = False
        self.shares: Collection[Share] = ()
        self.lock: threading.Lock | None = None

    def tell(self, *, has_waiting: bool) -> None:
        """Set `has_waiting`. The caller must not hold the lock."""
        if has_waiting is self.has_waiting or self.lock is None:
            return
        with self.lock:
            self.has_waiting = has_waiting
            for share in self.shares:
                share.count_wanting()


@dataclass(eq=False, slots=True)
class _Member:
    """A model: its demand, its shares by pool, the number of its requests at the last update, and its requests per
    ns.
    """

    demand: Demand
    shares: Mapping[Unit, Share]
    num_before: int = 0
    per_ns: float = 0.0


class Balance:
    """Divides pools between the models that report their demand. Call `update` on the event loop's thread.

    Attributes:
        due_ns: the time at which the pools should be divided again; infinite while there is only one model.
    """

    def __init__(self, lock: threading.Lock, pool_of: Callable[[Unit], Unit]) -> None:
        """Args:
        lock: the lock that guards the shares.
        pool_of: returns the pool of a unit.
        """
        self._lock = lock
        self._pools = list(dict.fromkeys(map(pool_of, Unit)))
        self._index = {unit: self._pools.index(pool_of(unit)) for unit in Unit}
        self._members: list[_Member] = []
        self._parts: dict[_Member, NDArray[np.float64]] = {}
        self._prices = np.full(len(self._pools), 1 / len(self._pools))
        self.due_ns = math.inf
        self._updated_ns = 0
        self._num_updates = 0

    def join(self, demand: Demand, shares: Mapping[Unit, Share]) -> None:
        """Add a model with its shares by pool. The caller holds the lock."""
        demand.shares, demand.lock = list(shares.values()), self._lock
        for share in shares.values():
            share.demand = demand
        # A new list is made, since `update` may be iterating over the old one.
        self._set([*self._members, _Member(demand, shares)])

    def leave(self, demand: Demand) -> None:
        """Remove the model that `join` added with this demand."""
        with self._lock:
            self._set([each for each in self._members if each.demand is not demand])
            self._parts = {each: part for each, part in self._parts.items() if each.demand is not demand}

    def _set(self, members: list[_Member]) -> None:
        self._members = members
        self._set_due()

    def _set_due(self) -> None:
        # With a single model there is nothing to divide, so the next update is never due.
        num_models = len(self._members)
        self.due_ns = math.inf
        if num_models > 1:
            self.due_ns = self._updated_ns + math.ceil(_PERIOD_NS * max(1, num_models / _MODELS))

    def update(self, now_ns: int) -> None:
        """Divide the pools anew, if `due_ns` has come."""
        if now_ns < self.due_ns:
            return
        elapsed_ns, self._updated_ns = now_ns - self._updated_ns, now_ns
        self._set_due()
        self._count(elapsed_ns)
        costs = {each: each.demand.costs() for each in self._members if each.per_ns > _RARE}
        asking = [each for each, known in costs.items() if known]
        times = self._times([(each.per_ns, costs[each]) for each in asking])
        load, parts = self._divide(asking, times) if len(asking) > 1 else (0.0, np.ones_like(times))
        leaves = (parts < _LEAST_PART) & np.isfinite(times) & (load >= _FULL)
        portions = self._portions(parts, times) if load >= _FULL else np.ones_like(parts)
        with self._lock:
            found = dict(zip(asking, zip(leaves.tolist(), portions.tolist(), strict=True), strict=True))
            for each in self._members:
                mine = found.get(each)
                for pool, share in each.shares.items():
                    index = self._index[pool]
                    share.is_elsewhere = mine is not None and mine[0][index]
                    share.portion = 1.0 if mine is None else mine[1][index]
                    share.count_wanting()

    def _portions(self, parts: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
        """The part of each pool's busy time that each model's requests need, [models, pools]; at least `_LEAST_PART`.

        `parts` is the part of each model's requests that each pool gets (`_divide`), and `times` is the fraction of a
        pool's time that all requests of a model would take (`_times`), both [models, pools].
        """
        used = parts * np.where(np.isfinite(times), times, 0.0)
        return np.maximum(used / np.maximum(used.sum(axis=0), 1e-9), _LEAST_PART)

    def _count(self, elapsed_ns: int) -> None:
        """Update each model's requests per nanosecond: at first the mean over all updates, later an exponential average
        over the last second (_RATE_NS).
        """
        self._num_updates += 1
        newest = max(1 / self._num_updates, 1 - math.exp(-elapsed_ns / _RATE_NS))
        for each in self._members:
            num_new, each.num_before = each.demand.num_requests - each.num_before, each.demand.num_requests
            each.per_ns += newest * (num_new / elapsed_ns - each.per_ns)

    def _times(self, asked: Sequence[tuple[float, Mapping[Unit, float]]]) -> NDArray[np.float64]:
        """Returns [models, pools]: the fraction of a pool's time that a model needs if all its requests run on its
        fastest unit of the pool; infinite if unknown.

        Args:
            asked: for each model, its requests per ns, and the time in ns of a request on each unit.
        """
        times = np.full((len(asked), len(self._pools)), math.inf)
        for row, (per_ns, costs) in zip(times, asked, strict=True):
            for unit, cost in costs.items():
                index = self._index[unit]
                row[index] = min(row[index], per_ns * cost)
        return times

    def _divide(self, members: Sequence[_Member], times: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Divide the models' demand over the pools, so that the fullest pool has as little load as possible. `times` is
        the fraction of a pool's time that all requests of a model would take, [models, pools] (`_times`). Returns a
        lower bound of the load of the fullest pool, and the part of each model's requests that each pool gets, averaged
        with earlier divisions (`_MEMORY`): [models, pools].
        """
        prices, rows, chosen, load = self._prices, np.arange(len(times)), np.zeros_like(times), 0.0
        scale = _STEP / times.min(axis=1).sum()
        for _ in range(_NUM_STEPS):
            cheapest = (times * prices).argmin(axis=1)
            used = np.bincount(cheapest, times[rows, cheapest], len(prices))
            # For any prices, `used @ prices` is a lower bound of the load of the fullest pool, however the demand is
            # divided (weak duality).
            load = max(load, float(used @ prices))
            chosen[rows, cheapest] += 1 / _NUM_STEPS
            prices = prices * np.exp(scale * used)
            # A pool without demand keeps a small price, so that it can be chosen later.
            prices = np.maximum(prices / prices.sum(), _LEAST_PRICE)
            prices = prices / prices.sum()
        self._prices = prices
        before = np.array([self._parts.get(each, newest) for each, newest in zip(members, chosen, strict=True)])
        parts = _MEMORY * before + (1 - _MEMORY) * chosen
        self._parts = dict(zip(members, parts, strict=True))
        return load, parts
