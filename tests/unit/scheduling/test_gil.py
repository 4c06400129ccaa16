"""A library that holds the GIL while it computes, as coremltools does, delays nobody's answer but its own."""

import asyncio
import functools
import os
from pathlib import Path

import numpy as np

from support import fragile
from support.hand import Doubler
from triune.config.policy import BatchingPolicy
from triune.core.clock import MonotonicClock
from triune.core.requests import UNIT_PARAMETER, InferenceRequest, InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit
from triune.hosting import HostedExecutable
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.runner import TensorRunner
from triune.scheduling.worker import ThreadWorker


async def test_other_units_answer_while_a_worker_process_holds_its_gil(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go-on")
    hosted = HostedExecutable(functools.partial(fragile.load, tmp_path), "'fragile'")
    clock = MonotonicClock()
    workers = [ThreadWorker(TensorRunner(each, clock), each.unit.value) for each in (hosted, Doubler(Unit.GPU))]
    policy = BatchingPolicy(max_batch_size=1, is_dynamic=True)
    dispatcher = Dispatcher("m", 1, policy, ["y"], workers, ModelStatistics(), clock)

    def send(value: float, unit: Unit) -> asyncio.Future[InferenceResponse]:
        inputs = {"x": np.full((1, 1), value, np.float32)}
        request = InferenceRequest("m", inputs, parameters={UNIT_PARAMETER: unit.value})
        return dispatcher.submit(Call(request, inputs, 1))

    held = send(fragile.HOLD, Unit.ANE)
    while not (tmp_path / "holding").exists():
        await asyncio.sleep(0.001)
    # The process goes on only once all of these have their answers.
    for value in range(100):
        assert (await send(value, Unit.GPU)).outputs["y"].item() == 2 * value
        assert not held.done()
    (tmp_path / "go-on").write_bytes(b"1")
    assert (await held).outputs["y"].item() == 2 * fragile.HOLD
    await dispatcher.close()
