"""Measures what the runtimes reach on this machine's units: large matrix products, and copies in memory."""

import dataclasses
import datetime
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from triune.api.direct.products import here
from triune.api.models import load
from triune.core.errors import TriuneError
from triune.core.units import Presence, Unit
from triune.hardware.cpu import read_cpu
from triune.hardware.facts import UnitFacts
from triune.hardware.figures import Figure, FigureKind
from triune.hardware.measured import machine_key, save_measured
from triune.hardware.memory import usable_memory
from triune.runtimes.described import described_units, measured_folder, with_measured

_SIZE: Final = 2048
"""The number of rows and of columns of each matrix: larger than the caches, and within the limits of the
Neural Engine.
"""

_PRODUCTS: Final = {Unit.CPU: 4, Unit.AMX: 16, Unit.GPU: 128, Unit.ANE: 16}
"""The number of consecutive products in a run, by unit: so many that the run takes long compared with the transfer of
its input and output.
"""

_SECONDS: Final = 2.0
_FEWEST_RUNS: Final = 3
_MOST_COPIED_BYTES: Final = 1 << 30
_BUSY: Final = 0.25
"""The load average per core from which on the source of a figure says that the machine was busy."""

_DATATYPES: Final = {Unit.GPU: ("fp32", "fp16")}
"""The datatypes of the models to measure, by unit. On units that are not listed, only a model of fp32 is measured: they
compute it in their own precision.
"""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The measurements of a machine.

    Attributes:
        figures: the measured figures, by unit and name.
        failures: by unit, why its products could not be measured.
    """

    figures: Mapping[Unit, Mapping[str, Figure]]
    failures: Mapping[Unit, str]


def measure_units() -> Sequence[UnitFacts]:
    """Measure this machine's rates and bandwidth, keep them, and describe its units with them. Takes about a minute.

    The products from which `triune.matmul` chooses a unit are measured, too.

    Raises:
        OSError: the cache folder cannot be written to.
    """
    found = described_units()
    measured = measure(found)
    save_measured(measured_folder(), machine_key(found), measured.figures)
    here().tune()
    return [_with_failure(each, measured.failures) for each in with_measured(found, measured.figures)]


def _with_failure(facts: UnitFacts, failures: Mapping[Unit, str]) -> UnitFacts:
    if facts.unit not in failures:
        return facts
    return dataclasses.replace(facts, unavailable={**facts.unavailable, "products": failures[facts.unit]})


def measure(units: Sequence[UnitFacts]) -> Measurement:
    """Measure each unit that is present and has a runtime: the rate of products, and the CPU's memory bandwidth."""
    source = today()
    figures: dict[Unit, dict[str, Figure]] = {Unit.CPU: {}}
    failures: dict[Unit, str] = {}
    with tempfile.TemporaryDirectory(prefix="triune-") as folder:
        for facts in units:
            if facts.presence is not Presence.PRESENT or not facts.runtimes:
                continue
            try:
                for datatype in _DATATYPES.get(facts.unit, ("fp32",)):
                    name, figure = _product_rate(Path(folder), facts, datatype, source)
                    figures.setdefault(facts.unit, {})[name] = figure
            except TriuneError as error:
                failures[facts.unit] = str(error)
    figures[Unit.CPU]["memory_gb_per_s"] = copy_rate(source)
    return Measurement(figures, failures)


def copy_rate(source: str, num_bytes: int | None = None) -> Figure:
    """The rate at which all cores together copy a large array, in 10^9 bytes read and written a second.

    Args:
        source: the figure's source.
        num_bytes: the size of the array; None takes a gigabyte, or an eighth of the available memory if that is less.
    """
    num_threads = read_cpu().num_cores
    size = min(_MOST_COPIED_BYTES, usable_memory().available // 8) if num_bytes is None else num_bytes
    given, taken = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    parts = [slice(size * i // num_threads, size * (i + 1) // num_threads) for i in range(num_threads)]

    def copy(part: slice) -> None:
        np.copyto(taken[part], given[part])

    with ThreadPoolExecutor(num_threads) as pool:
        seconds = _least_seconds(lambda: list(pool.map(copy, parts)))
    note = f"{num_threads} threads copy {size >> 20} MiB; bytes read and written count"
    return Figure(_rounded(2 * size / seconds / 1e9), "GB/s", FigureKind.MEASURED, source, note=note)


def _product_rate(folder: Path, facts: UnitFacts, datatype: str, source: str) -> tuple[str, Figure]:
    """The name and the figure of the rate at which a unit computes products of `datatype`."""
    num_products = _PRODUCTS[facts.unit]
    path = _save_products(folder / f"{datatype}-{num_products}.onnx", datatype, num_products)
    given = np.ones((_SIZE, _SIZE), np.float16 if datatype == "fp16" else np.float32)
    with load(path, facts.unit.value) as model:
        seconds = _least_seconds(lambda: model.run({"x": given}))
        precision = model.precision
    rate = num_products * 2 * _SIZE**3 / seconds / 1e12
    by = " and ".join(f"{each.title} {each.version}".strip() for each in facts.runtimes[:1])
    note = f"{num_products} products of {_SIZE} x {_SIZE} in a model, by {by}"
    return f"matmul_{precision}_tflops", Figure(
        _rounded(rate), "TFLOPS", FigureKind.MEASURED, source, basis=precision, note=note
    )


def today() -> str:
    """The source of figures that are measured now, with a warning if other programs use the cores."""
    date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    load, num_cores = os.getloadavg()[0], read_cpu().num_cores
    busy = f", busy: a load of {load:.1f} on {num_cores} cores" if load > _BUSY * num_cores else ""
    return f"measured here on {date}{busy}"


def _save_products(path: Path, datatype: str, num_products: int) -> Path:
    """A model that multiplies `x` of (_SIZE, _SIZE) by a matrix, and the product again, `num_products` times."""
    element = TensorProto.FLOAT16 if datatype == "fp16" else TensorProto.FLOAT
    # Scale the matrix so that the squares of a row sum to about 1: the numbers of all products stay in fp16's range.
    matrix = np.random.default_rng(0).standard_normal((_SIZE, _SIZE)) / np.sqrt(_SIZE)
    names = ["x", *(f"x{index}" for index in range(1, num_products)), "y"]
    nodes = [helper.make_node("MatMul", [names[i], "w"], [names[i + 1]]) for i in range(num_products)]
    shape = [_SIZE, _SIZE]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info("y", element, shape)],
        [numpy_helper.from_array(matrix.astype(np.float16 if datatype == "fp16" else np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def _least_seconds(run: Callable[[], object]) -> float:
    """The time of the fastest run, in seconds. The first run is not counted; the others take about two seconds."""
    run()
    times: list[float] = []
    while len(times) < _FEWEST_RUNS or sum(times) < _SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _rounded(value: float) -> float:
    """Round to three digits: a measurement of two seconds is not more precise."""
    return float(f"{value:.3g}")
