"""Core AI's element types, and the types that carry them in a graph.

ONNX's runtimes compute in few types. Integers of less than 8 bits are carried in int8 or uint8, and floats of at most 8
bits in fp32. A value is rounded to its own type where it is computed, never where it is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

from triune.core.errors import UnsupportedError
from triune.coreai.images import image_of
from triune.coreai.library import dialect, ir
from triune.graph.raising.types import Array, DType, TensorType


@dataclass(frozen=True, slots=True)
class Element:
    """An element type.

    Attributes:
        carried: the type in the graph that carries it; for complex numbers that of each part.
        storage: the numpy dtype of an element in a file.
        bits: the number of bits of an element.
        lowest, highest: the limits of an integer type.
    """

    carried: DType
    storage: np.dtype[Any]
    bits: int
    lowest: int = 0
    highest: int = 0
    is_complex: bool = False

    def carry(self, values: Array) -> Array:
        """Convert elements as a file stores them to the type `carried`, in which the graph has them."""
        if self.is_complex or (self.storage == self.carried.numpy and self.bits == self.storage.itemsize * 8):
            return values
        if self.bits < 8 and self.storage.kind in "iu":
            small = values.view(np.uint8) & ((1 << self.bits) - 1)
            if self.lowest < 0:
                sign = 1 << (self.bits - 1)
                return ((small ^ sign).astype(np.int16) - sign).astype(np.int8)
            return small
        return values.astype(self.carried.numpy)


def _integer(bits: int, is_signed: bool) -> Element:
    width = max(8, bits)
    letter = "int" if is_signed else "uint"
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if is_signed else (0, (1 << bits) - 1)
    return Element(DType(f"{letter}{width}"), np.dtype(f"{letter}{width}"), bits, low, high)


_ELEMENTS: Mapping[str, Element] = MappingProxyType(
    {
        "f16": Element(DType.FP16, np.dtype(np.float16), 16),
        "bf16": Element(DType.BF16, np.dtype(ml_dtypes.bfloat16), 16),
        "f32": Element(DType.FP32, np.dtype(np.float32), 32),
        "f64": Element(DType.FP64, np.dtype(np.float64), 64),
        "i1": Element(DType.BOOL, np.dtype(np.bool_), 8),
        "f8E4M3FN": Element(DType.FP32, np.dtype(ml_dtypes.float8_e4m3fn), 8),
        "f8E5M2": Element(DType.FP32, np.dtype(ml_dtypes.float8_e5m2), 8),
        "f8E8M0FNU": Element(DType.FP32, np.dtype(ml_dtypes.float8_e8m0fnu), 8),
        "f4E2M1FN": Element(DType.FP32, np.dtype(ml_dtypes.float4_e2m1fn), 4),
        "complex<f32>": Element(DType.FP32, np.dtype(np.complex64), 64, is_complex=True),
        **{f"si{bits}": _integer(bits, True) for bits in (2, 4, 8, 16, 32, 64)},
        **{f"ui{bits}": _integer(bits, False) for bits in (1, 2, 3, 4, 6, 8, 16, 32, 64)},
    }
)


def element_of(word: str) -> Element:
    """The element type that MLIR calls `word`.

    Raises:
        UnsupportedError: the name is unknown.
    """
    if word not in _ELEMENTS:
        raise UnsupportedError(f"a tensor of {word}, which is not a known element type")
    return _ELEMENTS[word]


def ranked(kind: Any) -> Any:
    """The tensor type of a value, or of the value that a handle refers to.

    Raises:
        UnsupportedError: the type is that of an image or a token.
    """
    if dialect.HandleType.isinstance(kind):
        kind = dialect.HandleType(kind).inner_type
    if not ir.RankedTensorType.isinstance(kind):
        raise UnsupportedError(f"a value of type {kind}, which is not a tensor")
    return ir.RankedTensorType(kind)


def element_type(kind: Any) -> Element:
    """The element type of a value's type. Raises UnsupportedError if it is unknown, or the value is not a tensor."""
    return element_of(str(ranked(kind).element_type))


def tensor_type(kind: Any) -> TensorType:
    """The type of a value in the graph; for an image, that of its bytes.

    Raises:
        UnsupportedError: the value is neither a tensor nor an image, or its element type or pixel format is unknown.
    """
    image = image_of(str(kind))
    if image is not None:
        return TensorType(DType.UINT8, image.shape)
    tensor = ranked(kind)
    shape = tuple(None if ir.ShapedType.is_dynamic_size(size) else int(size) for size in tensor.shape)
    return TensorType(element_of(str(tensor.element_type)).carried, shape)


def is_complex(kind: Any) -> bool:
    """Whether the type is a tensor of complex numbers."""
    return ir.RankedTensorType.isinstance(kind) and str(ir.RankedTensorType(kind).element_type).startswith("complex")
