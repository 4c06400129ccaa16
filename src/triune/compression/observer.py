"""Observe the values that a model computes on samples, and find the range of each."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from onnx import ModelProto

from triune.compression.options import Calibration
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.graph.custom import NO_CUSTOM_OPS, CustomOps
from triune.graph.custom.session import session_of

_AT_ONCE = 64
"""Each run of a model returns this many of its values at most, so that the values fit into memory."""

_PERCENTILE = 99.999
_NUM_BINS = 512
_NUM_QUANTIZED_BINS = 128
"""To choose a range by entropy, ONNX Runtime compares a histogram of the values, which has `_NUM_BINS` bins, with a
quantized histogram of this many bins. With its defaults, 128 bins in each, it would never choose a range narrower than
the values that occurred. The time of its search grows with the square of `_NUM_BINS`.
"""


@dataclass(frozen=True, slots=True)
class Range:
    """The range of a value.

    Attributes:
        low: the smallest number that is quantized without being clipped.
        high: the largest one.
    """

    low: float
    high: float


def observe(
    model: ModelProto,
    names: Sequence[str],
    samples: Sequence[Mapping[str, Array]],
    calibration: Calibration,
    ops: CustomOps = NO_CUSTOM_OPS,
) -> dict[str, Range]:
    """Run a model on samples, and find the ranges of some of its values.

    Args:
        model: not changed.
        names: the values: inputs and results of nodes, of fp32 or fp16.
        samples: its inputs.
        calibration: how a range is found.
        ops: the custom operators that numpy computes.

    Raises:
        InvalidArgumentError: the model does not take a sample, or computes NaN or infinities on it.
    """
    found: dict[str, Range] = {}
    for begin in range(0, len(names), _AT_ONCE):
        part = names[begin : begin + _AT_ONCE]
        watch = _MinMax() if calibration is Calibration.MINMAX else _Histograms(calibration)
        for values in values_on(model, part, samples, ops):
            for name in part:
                array = values[name]
                if not np.isfinite(array).all():
                    raise InvalidArgumentError(
                        f"the model computes NaN or infinities in '{name}' on these samples, so that no range can be "
                        "taken: give other samples (--calibrate), or compress the weights alone"
                    )
                if array.size:
                    watch.add(name, array)
        found |= watch.ranges()
    return {name: found.get(name, Range(0.0, 0.0)) for name in names}


def with_outputs(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """A copy of a model whose outputs are these results of its nodes. Their types must have been inferred."""
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    known = {info.name: info for info in (*model.graph.value_info, *model.graph.output)}
    copy.graph.output.extend(known[name] for name in names)
    return copy


def values_on(
    model: ModelProto, names: Sequence[str], samples: Sequence[Mapping[str, Array]], ops: CustomOps = NO_CUSTOM_OPS
) -> Iterator[Mapping[str, Array]]:
    """Yield, for each sample, some values of a model by name: inputs or results of nodes. `ops` are the custom
    operators that numpy computes.

    Raises:
        InvalidArgumentError: the model does not take a sample.
    """
    inputs = {value.name for value in model.graph.input}
    wanted = [name for name in names if name not in inputs]
    if not wanted:
        yield from samples
        return
    session = session_of(with_outputs(model, wanted), "the model", ops)
    for sample in samples:
        yield {**sample, **session.run(sample, {})[0]}


class _MinMax:
    def __init__(self) -> None:
        self._ranges: dict[str, Range] = {}

    def add(self, name: str, array: Array) -> None:
        low, high = float(array.min()), float(array.max())
        known = self._ranges.get(name, Range(low, high))
        self._ranges[name] = Range(min(low, known.low), max(high, known.high))

    def ranges(self) -> Mapping[str, Range]:
        return self._ranges


class _Histograms:
    """ONNX Runtime's histograms. They are given one sample at a time: given all samples, they would keep all values."""

    def __init__(self, calibration: Calibration) -> None:
        # The library is imported when it is needed, since it takes a second.
        from onnxruntime.quantization import calibrate

        library: Any = calibrate
        self._collector: Any = library.HistogramCollector(
            method=calibration.value,
            symmetric=False,
            num_bins=_NUM_BINS,
            num_quantized_bins=_NUM_QUANTIZED_BINS,
            percentile=_PERCENTILE,
            scenario="same",
        )
        self._seen = _MinMax()

    def add(self, name: str, array: Array) -> None:
        self._seen.add(name, array)
        with redirect_stdout(StringIO()):
            self._collector.collect({name: array.astype(np.float32)})

    def ranges(self) -> Mapping[str, Range]:
        seen = self._seen.ranges()
        if not seen:
            return seen
        with redirect_stdout(StringIO()), np.errstate(all="ignore"):
            found: Mapping[str, Any] = self._collector.compute_collection_result()
        return {name: _checked(found[name], each) for name, each in seen.items()}


def _checked(found: Sequence[Any], seen: Range) -> Range:
    """Limit the range (low, high) that ONNX Runtime found to `seen`, the range of the values that occurred; return
    `seen` if what was found is not finite or empty.
    """
    low, high = float(found[0]), float(found[1])
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        return seen
    return Range(max(low, seen.low), min(high, seen.high))
