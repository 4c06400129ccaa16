"""The cost model: predicts the time and the energy of an operation on a unit.

Each operation has a roofline: a fixed time for its launch, plus the larger of the time of its arithmetic and the time
of its memory traffic. Arithmetic reaches a fraction of the unit's rated peak that depends on the operation's class and
shape (`efficiency`, `half_rows`, `half_columns`). Traffic is weights, which stream from memory, and activations, which
stay on the chip up to a working set (`knee_mb`). All functions take arrays with one element per operation, so that
fitting the constants and planning a model use the same code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.planning.op import Op, OpClass

CLASSES = tuple(OpClass)
_INDEX = {each: index for index, each in enumerate(CLASSES)}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Operations as arrays with one element per operation. The fields are those of `Op`."""

    op_class: NDArray[np.intp]
    flops: NDArray[np.float64]
    weights: NDArray[np.float64]
    weight_bits: NDArray[np.float64]
    read: NDArray[np.float64]
    written: NDArray[np.float64]
    scratch: NDArray[np.float64]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    is_launched: NDArray[np.bool_]


def sizes_of(ops: Sequence[Op], weight_bits: float | None = None) -> Sizes:
    """Make arrays of operations.

    Args:
        ops: the operations.
        weight_bits: the bits of stored weights for operations that do not say so; None for the unit's precision, which
            is NaN in the array.
    """

    def numbers(key: str) -> NDArray[np.float64]:
        return np.array([getattr(op, key) for op in ops], np.float64)

    bits = [weight_bits if op.weight_bits is None else op.weight_bits for op in ops]
    return Sizes(
        np.array([_INDEX[op.op_class] for op in ops], np.intp),
        numbers("flops"),
        numbers("weights"),
        np.array([np.nan if each is None else each for each in bits], np.float64),
        numbers("read"),
        numbers("written"),
        numbers("scratch"),
        numbers("rows"),
        numbers("columns"),
        np.array([op.op_class is not OpClass.VIEW and not op.is_fused for op in ops], np.bool_),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The speeds and the power of a unit of one chip. `planning.units` computes them from the chip's rated figures and
    from fitted constants.

    Attributes:
        tflops: the rated peak, in 10^12 floating-point operations a second.
        efficiency: the fraction of the peak that large operations of each class reach.
        half_rows: the rows at which a product reaches half of its efficiency.
        half_columns: the columns at which a product reaches half of its efficiency.
        weights_gb_per_s: the rate at which weights stream from memory.
        weights_g_per_s: the rate at which stored weights become operands, in 10^9 elements a second.
        memory_gb_per_s: the rate of activations that do not fit on the chip.
        chip_gb_per_s: the rate of activations that stay on the chip.
        knee_mb: the working set up to which activations of an operation stay on the chip, in 10^6 bytes.
        has_fused_attention: whether the scores of attention stay within the operation.
        op_ms: the time of one operation's launch within a segment.
        launch_ms: the time of a segment's launch.
        element_bytes: the size of an activation, and of a weight that is not stored in fewer bits.
        watts: the power while it computes, regardless of the operation.
        pj_per_flop: the energy of a floating-point operation, in 10^-12 joules.
        pj_per_byte: the energy of a byte of traffic, in 10^-12 joules.
    """

    tflops: float
    efficiency: Mapping[OpClass, float]
    half_rows: float
    half_columns: float
    weights_gb_per_s: float
    weights_g_per_s: float
    memory_gb_per_s: float
    chip_gb_per_s: float
    knee_mb: float
    has_fused_attention: bool
    op_ms: float
    launch_ms: float
    element_bytes: float
    watts: float
    pj_per_flop: float
    pj_per_byte: float


@dataclass(frozen=True, slots=True)
class Costs:
    """The predicted costs of operations on a unit, as arrays with one element per operation.

    Attributes:
        ms: the time, without the launch of the segment.
        joules: the energy.
        compute_ms: the time of the arithmetic in the roofline.
        memory_ms: the time of the memory traffic in the roofline.
        memory_bytes: the traffic with the memory: weights, and the activations that leave the chip.
    """

    ms: NDArray[np.float64]
    joules: NDArray[np.float64]
    compute_ms: NDArray[np.float64]
    memory_ms: NDArray[np.float64]
    memory_bytes: NDArray[np.float64]


def costs_of(sizes: Sizes, rates: Rates) -> Costs:
    """Predict the time and the energy of operations on a unit."""
    shares = np.array([rates.efficiency.get(each, 1.0) for each in CLASSES])[sizes.op_class]
    fill = sizes.rows / (sizes.rows + rates.half_rows) * sizes.columns / (sizes.columns + rates.half_columns)
    # Only products reach less of the peak with few rows or columns, which leave a part of the multipliers idle.
    is_product = np.isin(sizes.op_class, _PRODUCTS)
    compute_ms = sizes.flops / (rates.tflops * 1e9 * shares * np.where(is_product, fill, 1.0))
    bits = np.where(np.isnan(sizes.weight_bits), 8 * rates.element_bytes, sizes.weight_bits)
    weight_bytes = sizes.weights * bits / 8
    weights_ms = np.maximum(weight_bytes / rates.weights_gb_per_s, sizes.weights / rates.weights_g_per_s) / 1e6
    moved = sizes.read + sizes.written
    if not rates.has_fused_attention:
        moved = moved + 2 * sizes.scratch
    activations = np.where(sizes.op_class == _INDEX[OpClass.VIEW], 0.0, moved * rates.element_bytes)
    beyond = np.maximum(0.0, activations - rates.knee_mb * 1e6)
    memory_ms = weights_ms + (activations - beyond) / rates.chip_gb_per_s / 1e6 + beyond / rates.memory_gb_per_s / 1e6
    ms = np.asarray(np.maximum(compute_ms, memory_ms) + rates.op_ms * sizes.is_launched, np.float64)
    joules = 1e-3 * rates.watts * ms + 1e-12 * (
        rates.pj_per_flop * sizes.flops + rates.pj_per_byte * (weight_bytes + beyond)
    )
    return Costs(ms, joules, compute_ms, memory_ms, weight_bytes + beyond)


def _classes(*classes: OpClass) -> NDArray[Any]:
    return np.array([_INDEX[each] for each in classes])


_PRODUCTS = _classes(OpClass.CONV, OpClass.DEPTHWISE, OpClass.MATMUL, OpClass.PRODUCT)
