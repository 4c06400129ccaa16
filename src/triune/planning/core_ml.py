"""Predicts Core ML's own choice of units under `cpuAndNeuralEngine`: a shortest path over its estimates.

Core ML's placement counts 0.125 ms for each segment on the Neural Engine, for each change of units, and for an output
on the Neural Engine. With Core ML's own estimates of operations, this rule gives its choice in 481 of 482 published
models, 41 of them ties (751K/Apple-Neural-Engine-Microarchitecture-Study-M6, notes/coreml_dispatch.md: M4, macOS
27.0.1). Core ML estimates operations by decision trees that are not published. The rates here are those of the ten
operations whose estimates were published.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from triune.core.units import Unit
from triune.hardware.rules import refusal
from triune.planning.op import Op, OpClass
from triune.planning.placement import PathCosts, place_fastest

LAUNCH_MS: Final = 0.125
"""The time, in ms, that Core ML counts for a segment on the Neural Engine, for a change of units, and for an output on
the Neural Engine.
"""

_UNITS: Final = (Unit.CPU, Unit.ANE)


@dataclass(frozen=True, slots=True)
class _Rate:
    """The rates of the CPU and of the Neural Engine: arithmetic in 10^12 operations per second, or traffic in 10^9
    bytes per second.
    """

    cpu: float
    ane: float
    is_arithmetic: bool = False


# Each rate is the work of an operation divided by Core ML's published estimate of its time. A 3x3 convolution of 64
# channels over 32x32 takes 100.06 us on the CPU and 4.67 us on the Neural Engine, a 1x1 one 21.62 and 1.17; a product
# 128x256x128 11.12 and 2.24; attention of 8 heads, 128 tokens and 64 elements 8.62 and 7.18; of 64x32x32 elements relu
# 2.62 and 2.62, softmax 4.31 and 3.59, transpose 3.00 and 3.81, concat 22.79 and 2.62; bilinear upsampling by 2 499.64
# and 3.31. A linear layer of 128x512x512 takes 400.04 and 12.68; smaller ones are estimated at lower rates still.
_CONV: Final = _Rate(0.755, 16.2, is_arithmetic=True)
_POINTWISE_CONV: Final = _Rate(0.388, 7.17, is_arithmetic=True)
_LINEAR: Final = _Rate(0.168, 5.29, is_arithmetic=True)
_PRODUCT: Final = _Rate(0.754, 3.74, is_arithmetic=True)
_ATTENTION: Final = _Rate(3.89, 4.67, is_arithmetic=True)
_TRAFFIC: Final = _Rate(100, 100)
_REDUCE: Final = _Rate(60.8, 73)
_TRANSPOSE: Final = _Rate(87.4, 68.8)
_CONCAT: Final = _Rate(11.5, 100)
_RESIZE: Final = _Rate(1.31, 198)


@dataclass(frozen=True, slots=True)
class CoreMlChoice:
    """The units that Core ML would choose, by its own estimates.

    Attributes:
        units: the unit of each operation, CPU or ANE.
        ms: the total of Core ML's estimates for that choice, which is not a prediction of a time.
        num_segments: the number of runs of operations on one unit.
    """

    units: tuple[Unit, ...]
    ms: float
    num_segments: int

    @property
    def num_on_ane(self) -> int:
        """The number of operations on the Neural Engine."""
        return sum(unit is Unit.ANE for unit in self.units)


def core_ml_choice(ops: Sequence[Op], tier: int) -> CoreMlChoice:
    """Core ML's choice under `cpuAndNeuralEngine` for operations in their order.

    Args:
        ops: the operations of an fp16 model.
        tier: the tier of the chip's Neural Engine, for the rules.
    """
    costs = np.array([estimate_ms(op) for op in ops])
    for index, op in enumerate(ops):
        if refusal(op.facts, Unit.ANE, "onnx", tier) is not None:
            costs[index, 1] = np.inf
    return choice_of(costs)


def choice_of(costs: np.ndarray) -> CoreMlChoice:
    """Make the choice from estimates in milliseconds [operations, (CPU, ANE)], which are infinite where a unit refuses
    an operation.
    """
    launch = np.array([0.0, LAUNCH_MS])
    switch = LAUNCH_MS * (1 - np.eye(2))
    path = PathCosts(costs, launch, switch, np.zeros(len(costs)), launch)
    chosen = place_fastest(path)
    segments = 1 + sum(one != other for one, other in itertools.pairwise(chosen))
    return CoreMlChoice(tuple(_UNITS[unit] for unit in chosen), path.total(chosen), segments)


def estimate_ms(op: Op) -> tuple[float, float]:
    """Core ML's estimates, in ms, of an operation on the CPU and on the Neural Engine, by the published rates."""
    if op.op_class is OpClass.VIEW or op.is_fused:
        return 0.0, 0.0
    rate = _rate_of(op)
    if rate.is_arithmetic:
        return op.flops / rate.cpu / 1e9, op.flops / rate.ane / 1e9
    num_bytes = 2 * (op.read + op.written)
    return num_bytes / rate.cpu / 1e6, num_bytes / rate.ane / 1e6


def _rate_of(op: Op) -> _Rate:
    if op.op_class in (OpClass.CONV, OpClass.DEPTHWISE):
        is_pointwise = all(size == 1 for size in op.facts.kernel)
        return _POINTWISE_CONV if is_pointwise and op.facts.kernel else _CONV
    by_type: Mapping[str, _Rate] = {
        "Attention": _ATTENTION,
        "Transpose": _TRANSPOSE,
        "Concat": _CONCAT,
        "Resize": _RESIZE,
    }
    if op.op_type in by_type:
        return by_type[op.op_type]
    if op.is_product:
        return _LINEAR if op.op_class is OpClass.MATMUL else _PRODUCT
    return _REDUCE if op.op_class is OpClass.REDUCE else _TRAFFIC
