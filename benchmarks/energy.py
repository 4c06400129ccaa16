"""Measure the metering of energy: whether sums agree, and what it costs.

    python benchmarks/energy.py                     # what metering adds to a request, on any machine
    python benchmarks/energy.py --gpu               # beside an NVIDIA GPU: needs mlx's CUDA build and nvidia-ml-py

With --gpu: for 20 s, two "models" compute bf16 matrix products through MLX, by turns and with pauses, while a thread of
this benchmark reads NVML's power every 20 ms by itself. Printed are

- how often NVML's counter of energy changes, which is the resolution of all figures;
- the joules that the meter counted, against the integral of NVML's power: both are NVIDIA's, but they are different
  sensors' averages, so that some percent between them are theirs;
- what was charged to the models and what was idle, against the meter's total (it must agree within 5%, and by
  construction does to rounding);
- the same for the time: a model's share of joules against its share of busy time, at equal load;
- the time that a reading takes, and the share of the interval that it is.
"""

import argparse
import asyncio
import importlib
import json
import os
import statistics
import sys
import threading
import time
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from triune.config.policy import BatchingPolicy
from triune.core.clock import MonotonicClock
from triune.core.energy import Account, Bill, EnergyKind, Phase, Share
from triune.core.requests import InferenceRequest
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.energy.accountant import EnergyAccountant
from triune.hardware.energy.detect import import_installed, linux_meter
from triune.hardware.energy.hand import HandMeter
from triune.hardware.energy.ledger import EnergyLedger
from triune.hardware.energy.meter import EnergyMeter, Rail, RailRole
from triune.hardware.energy.nvml import NvmlMeter
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.runner import TensorRunner
from triune.scheduling.worker import InlineWorker, ThreadWorker

CLOCK = MonotonicClock()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="meter an NVIDIA GPU under load")
    parser.add_argument("--seconds", type=float, default=20.0, help="of load, with --gpu")
    parser.add_argument("--size", type=int, default=8192, help="rows and columns of the matrices, with --gpu")
    parser.add_argument("--requests", type=int, default=20_000, help="without --gpu")
    arguments = parser.parse_args()
    if arguments.gpu:
        print(json.dumps(gpu(arguments.seconds, arguments.size), indent=1))
    else:
        print(json.dumps(overhead(arguments.requests), indent=1))


class _Doubler:
    """y = 2x at once, so that what remains is the dispatcher's own time."""

    unit = Unit.CPU
    precision = "fp32"
    is_steady = True
    signature = None

    def run(self, inputs: Any, outputs: Any) -> Any:
        return {"y": inputs["x"]}

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


def overhead(num_requests: int) -> dict[str, Any]:
    """What metering adds to a request that runs on the event loop, to one that runs in a worker's thread, to a step of
    the engine with 32 sequences; and what a reading costs.
    """
    return asyncio.run(_overhead(num_requests))


async def _overhead(num_requests: int) -> dict[str, Any]:
    rail = Rail("cpu", frozenset({Unit.CPU, Unit.AMX}), RailRole.COMPUTE, EnergyKind.MEASURED, "a meter by hand")
    result: dict[str, Any] = {"cores": os.cpu_count(), "requests": num_requests}
    for name, worker_of in (
        ("on the loop", lambda: InlineWorker(TensorRunner(_Doubler()))),  # type: ignore[arg-type]
        ("in a thread", lambda: ThreadWorker(TensorRunner(_Doubler()), "bench")),  # type: ignore[arg-type]
    ):
        accountant = EnergyAccountant(HandMeter([rail], CLOCK))
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(7):
            # By turns, so that both see the same machine.
            for is_metered in (False, True):
                accounts = {Unit.CPU: accountant.ledger.account("m", 1, Unit.CPU)} if is_metered else {}
                policy = BatchingPolicy(max_batch_size=8)
                dispatcher = Dispatcher(
                    "m", 1, policy, ("y",), [worker_of()], ModelStatistics(), CLOCK, accounts=accounts
                )
                inputs = {"x": np.ones((1, 4), np.float32)}
                request = InferenceRequest("m", inputs)
                count = num_requests if name == "on the loop" else num_requests // 5
                began = time.perf_counter()
                for _ in range(count):
                    await dispatcher.submit(Call(request, inputs, 1))
                times[is_metered].append((time.perf_counter() - began) / count * 1e6)
                await dispatcher.close()
        accountant.close()
        plain, metered = (min(times[each]) for each in (False, True))
        result[name] = {
            "us a request, not metered": round(plain, 3),
            "us a request, metered": round(metered, 3),
            "added us": round(metered - plain, 3),
        }
    result["us of what is added, by itself"] = _added_us(rail)
    result["a reading"] = _sampling_us(rail)
    return result


def _added_us(rail: Rail) -> dict[str, float]:
    """The time of the calls that metering adds to a batch of one request, and to a step of 32 sequences.

    The difference of two rates of whole requests is less than their noise.
    """
    ledger = EnergyLedger(HandMeter([rail], CLOCK))
    account = ledger.account("m", 1, Unit.CPU)
    bills = [account.new_bill() for _ in range(32)]

    def batch() -> None:
        account.begin_batch(CLOCK.now_ns(), [(1, None)]).ended_ns = CLOCK.now_ns()

    def step() -> None:
        account.begin(CLOCK.now_ns(), partial(_shares, bills)).ended_ns = CLOCK.now_ns()

    return {
        name: round(min(timeit.repeat(work, ledger.sample, number=500, repeat=25)) / 500 * 1e6, 3)
        for name, work in (("a batch", batch), ("a step of 32 sequences", step))
    }


def _sampling_us(rail: Rail) -> dict[str, float]:
    """The time to divide an interval with 50 batches, and one with 20 steps of 64 sequences."""
    found: dict[str, float] = {}
    for name, num_works, num_shares in (("50 batches", 50, 1), ("20 steps of 64 sequences", 20, 64)):
        meter = HandMeter([rail], CLOCK)
        ledger = EnergyLedger(meter)
        account = ledger.account("m", 1, Unit.CPU)
        spent: list[float] = []
        for _ in range(50):
            now_ns = CLOCK.now_ns()
            for _ in range(num_works):
                bills = [Bill() for _ in range(num_shares)]
                account.begin(CLOCK.now_ns(), partial(_shares, bills)).ended_ns = CLOCK.now_ns()
            meter.feed("cpu", (CLOCK.now_ns() - now_ns) / 1e9)
            began = time.perf_counter()
            ledger.sample()
            spent.append((time.perf_counter() - began) * 1e6)
        found[f"us to divide {name}"] = round(statistics.median(spent), 1)
    return found


def _shares(bills: list[Bill]) -> list[Share]:
    return [Share(Phase.DECODE, 1 / len(bills), bill) for bill in bills]


class _Power(threading.Thread):
    """Integrates NVML's power by itself."""

    def __init__(self, nvml: Any) -> None:
        super().__init__(daemon=True)
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(0)
        self._is_ended = threading.Event()
        self.joules = 0.0
        self.counter_changes: list[float] = []
        self.watts: list[float] = []

    def run(self) -> None:
        last, last_count = None, None
        changed = 0.0
        while not self._is_ended.is_set():
            now, watts = time.perf_counter(), self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1e3
            count = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
            if last is not None:
                self.joules += (watts + last[1]) / 2 * (now - last[0])
            if count != last_count:
                if changed:
                    self.counter_changes.append(now - changed)
                changed, last_count = now, count
            last = now, watts
            self.watts.append(watts)
            time.sleep(0.005)

    def end(self) -> None:
        self._is_ended.set()
        self.join()


def gpu(seconds: float, size: int) -> dict[str, Any]:
    """Meter the GPU under load."""
    multiply, device = _products(size)
    nvml = import_installed("pynvml")
    if nvml is None:
        sys.exit("nvidia-ml-py is not installed: pip install 'triune[energy]'")
    meter = linux_meter([UnitStatus(Unit.GPU, Presence.PRESENT)], CLOCK, import_installed)
    nvml.nvmlInit()
    power = _Power(nvml)
    accountant = EnergyAccountant(meter)
    ledger = accountant.ledger
    result: dict[str, Any] = {
        "rails": {each.rail.name: each.reason or each.rail.source for each in ledger.rails},
        "load": device,
    }
    accounts = [ledger.account(name, 1, Unit.GPU) for name in ("one", "other")]
    _load(multiply, accounts, 0.5)
    asyncio.run(accountant.settle())
    before = {each.model: sum(each.totals().values()) for each in accounts}
    (start,) = [each.totals for each in ledger.rails if each.rail.name == "gpu-0"]
    metered, charged, idle = start.metered, start.charged, start.idle
    power.start()
    began = time.perf_counter()
    busy = _load(multiply, accounts, seconds)
    elapsed = time.perf_counter() - began
    asyncio.run(accountant.settle())
    power.end()
    ledger.check()
    used = {each.model: sum(each.totals().values()) - before[each.model] for each in accounts}
    metered, charged, idle = start.metered - metered, start.charged - charged, start.idle - idle
    result |= {
        "seconds": round(elapsed, 2),
        "busy seconds": {name: round(each, 2) for name, each in busy.items()},
        "joules by the meter": round(metered, 1),
        "joules by NVML's power x time": round(power.joules, 1),
        "difference, %": round(100 * (metered / power.joules - 1), 2),
        "mean watts": round(metered / elapsed, 1),
        "watts seen": [round(min(power.watts)), round(max(power.watts))],
        "joules charged": {name: round(each, 1) for name, each in used.items()},
        "joules idle": round(idle, 1),
        "charged + idle against the meter, %": round(100 * ((charged + idle) / metered - 1), 6),
        "accounts + idle against the meter, %": round(100 * ((sum(used.values()) + idle) / metered - 1), 6),
        "share of one: joules, busy time": [
            round(used["one"] / sum(used.values()), 4),
            round(busy["one"] / sum(busy.values()), 4),
        ],
        "ms between changes of the counter, median": round(1e3 * statistics.median(power.counter_changes), 1),
        "a reading": _reading_cost(meter, NvmlMeter(nvml, CLOCK, os.environ)),
    }
    accountant.close()
    nvml.nvmlShutdown()
    return result


def _products(size: int) -> tuple[Callable[[int], None], str]:
    """What computes so many bf16 products of matrices, through MLX, or torch where that is not installed; and where."""
    mx = import_installed("mlx.core") if import_installed("mlx") is not None else None
    if mx is not None:
        matrix = mx.random.normal((size, size)).astype(mx.bfloat16)
        mx.eval(matrix)

        def by_mlx(count: int) -> None:
            mx.eval([matrix @ matrix for _ in range(count)])

        return by_mlx, f"MLX, {mx.default_device()}"
    torch = importlib.import_module("torch")
    square = torch.randn(size, size, dtype=torch.bfloat16, device="cuda")

    def by_torch(count: int) -> None:
        for _ in range(count):
            square @ square
        torch.cuda.synchronize()

    return by_torch, f"torch, {torch.cuda.get_device_name()}"


def _load(multiply: Callable[[int], None], accounts: list[Account], seconds: float) -> dict[str, float]:
    """Compute by turns for both accounts, 2:1, with pauses. Returns each one's busy seconds."""
    busy = {account.model: 0.0 for account in accounts}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for account, num_products in zip(accounts, (200, 100), strict=True):
            work = account.begin(CLOCK.now_ns())
            try:
                for _ in range(num_products // 10):
                    multiply(10)
            finally:
                work.ended_ns = CLOCK.now_ns()
            busy[account.model] += (work.ended_ns - work.started_ns) / 1e9
        time.sleep(0.15)
    return busy


def _reading_cost(meter: EnergyMeter, nvml: EnergyMeter) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, each in (("all meters", meter), ("NVML alone", nvml)):
        spent: list[float] = []
        for _ in range(50):
            began = time.perf_counter()
            each.read()
            spent.append((time.perf_counter() - began) * 1e6)
        found[f"us, {name}"] = round(statistics.median(spent), 1)
        found[f"% of an interval of 100 ms, {name}"] = round(statistics.median(spent) / 1000, 3)
    return found


if __name__ == "__main__":
    main()
