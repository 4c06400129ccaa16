"""Models that compute on simulated hardware. Their time passes on a virtual clock, and they are slower when others
compute too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from triune.arbiter.arbiter import Arbiter
from triune.arbiter.pool import Turn
from triune.arbiter.share import Share
from triune.core.clock import VirtualClock
from triune.core.units import Unit

STEP_NS = 250_000


@dataclass
class Load:
    """One model that always, or every `period_ns`, has a batch of `work_ns`, as long as it takes alone on `cpu`.

    Attributes:
        waits_ns: for each batch, the time from when it could start to its end.
        done_ns: the work that it completed.
    """

    name: str
    work_ns: int
    weight: float = 1.0
    period_ns: int = 0
    units: Mapping[Unit, float] = field(default_factory=lambda: {Unit.CPU: 1.0})
    waits_ns: list[int] = field(default_factory=list)
    done_ns: float = 0.0
    wanted_ns: int | None = 0
    shares: Mapping[Unit, Share] = field(default_factory=dict)
    running: dict[Unit, tuple[Turn, list[float]]] = field(default_factory=dict)

    def join(self, arbiter: Arbiter) -> None:
        self.shares = arbiter.join(self.name, list(self.units), self.woken, self.weight)

    def woken(self) -> None:
        """Do nothing, since `begin` is called at each step."""

    def begin(self, now_ns: int) -> None:
        """Start the batches that may start, on the fastest unit first."""
        for unit in sorted(self.units, key=lambda each: -self.units[each]):
            if self.wanted_ns is None or unit in self.running:
                continue
            alone_ns = self.work_ns / self.units[unit]
            turn = self.shares[unit].start(unit, alone_ns)
            if turn is None:
                return
            self.running[unit] = (turn, [alone_ns, self.wanted_ns])
            self.wanted_ns = None if self.period_ns else now_ns

    def end(self, unit: Unit, now_ns: int) -> None:
        turn, (_, wanted_ns) = self.running.pop(unit)
        fastest_ns = self.work_ns / max(self.units.values())
        next_ns = None if self.wanted_ns is None else self.work_ns / self.units[unit]
        self.shares[unit].end(turn, fastest_ns, next_ns)
        self.done_ns += fastest_ns
        self.waits_ns.append(int(now_ns - wanted_ns))


class Room:
    """Runs loads for some time. `shared[n]` is the speed of each of n loads that share the cores, relative to a load
    that runs alone.
    """

    def __init__(self, *loads: Load, shared: Mapping[int, float]) -> None:
        self.clock = VirtualClock()
        self.arbiter = Arbiter(self.clock)
        self.loads = loads
        self.shared = shared
        for load in loads:
            load.join(self.arbiter)

    def run(self, seconds: float) -> None:
        end_ns = self.clock.now_ns() + int(seconds * 1e9)
        while (now_ns := self.clock.now_ns()) < end_ns:
            for load in self.loads:
                if load.period_ns and now_ns % load.period_ns < STEP_NS and load.wanted_ns is None:
                    load.wanted_ns = now_ns
                load.begin(now_ns)
            self.clock.advance(STEP_NS)
            busy = [(load, unit) for load in self.loads for unit in load.running]
            speed = self.shared.get(len(busy), self.shared[max(self.shared)])
            for load, unit in busy:
                left = load.running[unit][1]
                left[0] -= STEP_NS * speed
                if left[0] <= 0:
                    load.end(unit, self.clock.now_ns())
