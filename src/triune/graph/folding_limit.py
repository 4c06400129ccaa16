"""How much memory the values may take that are computed from a model's constants when it is loaded or converted.

A file of some hundred bytes, such as a Range from 0 to 1e9, could otherwise take gigabytes.
"""

import math
from collections.abc import Iterable
from typing import Final

from onnx import TensorProto, helper

from triune.core.byte_settings import FOLDED, folded_bytes
from triune.graph.values import Values

_BYTES_OF_EACH: Final = 32
"""The bytes that may be made of each element of a model's own constants: four results of fp64, or eight of fp32, such
as those of Cast, Sub, Mul, Reshape and Transpose that unpack a quantized weight.
"""

_UNKNOWN_BYTES: Final = 8
"""The size assumed for an element of unknown type, in bytes."""

GROWS: Final = frozenset(
    {
        *("AffineGrid", "CenterCropPad", "Col2Im", "ConstantOfShape", "DFT", "Expand", "EyeLike", "MaxUnpool"),
        *("MelWeightMatrix", "OneHot", "Pad", "RandomNormal", "RandomUniform", "Range", "Resize", "STFT", "Tile"),
        *("BlackmanWindow", "HammingWindow", "HannWindow", "Upsample"),
        *("AveragePool", "Conv", "ConvInteger", "ConvTranspose", "LpPool", "MaxPool", "QLinearConv"),
    }
)
"""Operators whose results have a size that the values of an input or attribute decide."""

REMEDY: Final = f"compute them from an input, store them in the file, or raise the environment variable {FOLDED}"


def folding_limit(tensors: Iterable[TensorProto]) -> int:
    """The most bytes that all values computed from a model's constants may take together.

    Args:
        tensors: the model's constants, whose data is not read.

    Raises:
        InvalidArgumentError: $TRIUNE_FOLDED_BYTES is not a number of bytes.
    """
    return folded_bytes() + _BYTES_OF_EACH * sum(max(0, math.prod(tensor.dims)) for tensor in tensors)


def result_bytes(name: str, values: Values) -> int:
    """The bytes that a value takes; 0 if its shape is not known."""
    shape, kind = values.static_shape(name), values.elem_type(name)
    if shape is None:
        return 0
    is_number = kind not in (TensorProto.UNDEFINED, TensorProto.STRING)
    return math.prod(shape) * (helper.tensor_dtype_to_np_dtype(kind).itemsize if is_number else _UNKNOWN_BYTES)
