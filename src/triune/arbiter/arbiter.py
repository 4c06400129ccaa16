"""The arbiter of a machine: models ask it before they compute a batch on hardware that others use too.

Units that compute with the same hardware form a pool: `cpu`, `amx` and all emulated units share the cores; each other
unit is a pool of its own. `Concurrency` measures how many models of a pool should compute at once. If more models have
work, they take turns by start-time fair queueing (Goyal, Vin and Cheng, "Start-time fair queueing: a scheduling
algorithm for integrated services packet switching networks", 1996): each model has a clock of its own, which advances
by the time that it computes, divided by its weight, and the model whose clock is behind goes first. So no model
starves, and a model that was idle gets no more than its share afterwards. A model's own units take turns too, if they
share hardware, unless more gets done with all of them at once.

Two rules bound how long a model waits. A batch that is much shorter than the wait for its turn goes beside the others,
one such batch at a time: short requests are not stuck behind long ones. A model that has waited for PATIENCE_NS
computes in any case, and a batch that has computed for PATIENCE_NS no longer blocks others. So a model that hangs stops
no other.
"""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from triune.arbiter.balance import Balance, Demand
from triune.arbiter.pool import Pool
from triune.arbiter.share import Share
from triune.core.clock import Clock
from triune.core.units import Unit

CORES = (Unit.CPU, Unit.AMX)
"""The units that share the cores. On Apple's chips the AMX units belong to the clusters of CPU cores too."""


class Arbiter:
    """Divides the hardware of a machine among models. Any thread may call its methods and those of its shares.

    Attributes:
        balance: divides the pools between models.
    """

    def __init__(self, clock: Clock, emulated: Collection[Unit] = ()) -> None:
        """Args:
        clock: the clock that measures how long models compute.
        emulated: the emulated units, whose batches the CPU's cores compute.
        """
        self._clock = clock
        self._on_cores = {*CORES, *emulated}
        self._pools: dict[Unit, Pool] = {}
        self._lock = threading.Lock()
        self.balance = Balance(self._lock, self.pool_of)

    def join(
        self,
        name: str,
        units: Collection[Unit],
        wake: Callable[[], None],
        weight: float = 1.0,
        demand: Demand | None = None,
        objective_ns: int = 0,
    ) -> Mapping[Unit, Share]:
        """Register a model. Returns its shares by unit, one for each pool. The model must close them.

        Args:
            name: the model's name, for metrics.
            units: the units that it is served on.
            wake: called, in any thread, when it is the model's turn after it had to wait. It must not call the share
                itself.
            weight: a model with twice the weight computes for twice the time while both have work.
            demand: the model's demand, for dividing the pools; None if it may always use all of its pools.
            objective_ns: the model's latency objective, for which others cut their batches; 0 if it has none.
        """
        counts = Counter(self.pool_of(unit) for unit in units)
        shares: dict[Unit, Share] = {}
        with self._lock:
            for key, num_units in counts.items():
                pool = self._pools.get(key) or self._pools.setdefault(key, Pool(self._clock, self._lock))
                shares[key] = Share(name, pool, wake, weight, num_units, objective_ns)
                pool.join(shares[key])
            if demand is not None:
                self.balance.join(demand, shares)
        return {unit: shares[self.pool_of(unit)] for unit in units}

    def pool_of(self, unit: Unit) -> Unit:
        """The pool that a unit belongs to, named by the pool's first unit. Two units of the same pool compete."""
        return Unit.CPU if unit in self._on_cores else unit

    @property
    def pools(self) -> Mapping[Unit, Pool]:
        """The pools in which models have shares, by their first unit."""
        return self._pools
