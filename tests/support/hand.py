"""An executable and a worker whose progress a test controls step by step."""

import asyncio
import math
from collections.abc import Mapping, Sequence

import numpy as np

from triune.config.policy import BatchingPolicy
from triune.core.clock import VirtualClock
from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Unit
from triune.scheduling.batch import Batch
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.models import LoadedVersion
from triune.scheduling.runner import TensorRunner
from triune.scheduling.worker import BatchCallback, InlineWorker

POISON = -1.0
DETECTIONS = -7.0


class Doubler:
    """Computes y = 2x. Refuses a batch that contains POISON. For a batch with DETECTIONS, it returns only those rows,
    each twice.
    """

    precision = "fp32"
    report = ""
    is_steady = True
    signature = Signature(
        (TensorSpec("x", DataType.FP32, (-1, -1), ("batch", "length")),),
        (TensorSpec("y", DataType.FP32, (-1, -1), ("batch", "length")),),
    )

    def __init__(self, unit: Unit = Unit.CPU) -> None:
        self.unit = unit
        self.batches: list[Array] = []
        self.is_closed = False
        self.num_interrupts = 0

    def interrupt(self) -> None:
        self.num_interrupts += 1

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        x = inputs["x"]
        self.batches.append(x)
        if np.any(x == POISON):
            raise InvalidArgumentError("x holds poison")
        if np.any(x == DETECTIONS):
            return {"y": np.repeat(x[x[:, 0] == DETECTIONS], 2, axis=0)}
        return {"y": x * 2}

    def close(self) -> None:
        self.is_closed = True


class Ticking(VirtualClock):
    """A clock that advances by 0.1 ms with each reading."""

    def now_ns(self) -> int:
        self.advance(100_000)
        return super().now_ns()


class HandWorker:
    """A worker that runs a batch when the test tells it to."""

    is_inline = False

    def __init__(self, executable: Doubler, clock: VirtualClock) -> None:
        self.executable = executable
        self.runner = TensorRunner(executable, clock)
        self.clock = clock
        self.current: tuple[Batch, BatchCallback] | None = None

    def start(self, batch: Batch, done: BatchCallback) -> None:
        assert self.current is None, "a worker was given a second batch"
        self.current = (batch, done)

    def finish(self, after_ns: int = 0) -> None:
        assert self.current is not None
        batch, done = self.current
        self.current = None
        started_ns = self.clock.now_ns()
        self.clock.advance(after_ns)
        self.runner.run(batch)
        batch.started_ns = started_ns
        done(batch)

    @property
    def rows(self) -> list[float]:
        """The first column of the running batch, which shows whose requests are in it."""
        assert self.current is not None
        return [float(value) for pending in self.current[0].pendings for value in pending.call.inputs["x"][:, 0]]

    def close(self) -> None:
        if self.current is not None:
            self.finish()
        self.runner.close()


class Bench:
    """A dispatcher whose workers and clock the test controls."""

    def __init__(
        self,
        num_workers: int = 1,
        *,
        is_inline: bool = False,
        run_limit_seconds: float = math.inf,
        max_elements: int | None = None,
        objective_ns: int = 0,
        **policy: object,
    ) -> None:
        self.clock = VirtualClock()
        self.statistics = ModelStatistics()
        executables = [Doubler() for _ in range(num_workers)]
        self.workers = [HandWorker(each, self.clock) for each in executables]
        workers = [InlineWorker(TensorRunner(each, self.clock)) for each in executables] if is_inline else self.workers
        settings = {"max_batch_size": 8, "is_dynamic": True, **policy}
        self.dispatcher = Dispatcher(
            "doubler",
            3,
            BatchingPolicy(**settings),
            ["y"],
            workers,
            self.statistics,
            self.clock,
            run_limit_seconds=run_limit_seconds,
            max_elements=None if max_elements is None else lambda: max_elements,
            objective_ns=objective_ns,
        )

    def send(
        self, value: float, rows: int = 1, length: int = 1, priority: int = 0, timeout_us: int = 0
    ) -> asyncio.Future[InferenceResponse]:
        x = np.full((rows, length), value, np.float32)
        request = InferenceRequest("doubler", {"x": x}, id=str(value), priority=priority, timeout_us=timeout_us)
        return self.dispatcher.submit(Call(request, {"x": x}, rows))

    @property
    def rows(self) -> list[float]:
        return self.workers[0].rows

    @property
    def is_busy(self) -> bool:
        return self.workers[0].current is not None

    def finish(self, after_ns: int = 0) -> None:
        self.workers[0].finish(after_ns)


def dispatcher_of(loaded: LoadedVersion) -> Dispatcher:
    """The dispatcher of a loaded tensor model."""
    assert isinstance(loaded.servable, Dispatcher)
    return loaded.servable


def value_of(future: asyncio.Future[InferenceResponse]) -> float:
    """The first element of an answer that is available."""
    return float(future.result().outputs["y"].flat[0])
