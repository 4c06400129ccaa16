"""The options of a conversion to Core ML or Core AI."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from numpy.typing import NDArray

from triune.core.errors import InvalidArgumentError
from triune.graph.conversion.shapes import InputShape


class Precision(Enum):
    """The precision in which the program computes."""

    FP32 = "fp32"
    FP16 = "fp16"
    MIXED = "mixed"


class Layout(Enum):
    """The memory layout of the program's activations."""

    SOURCE = "source"
    ANE = "ane"


@dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """The options of a conversion.

    Attributes:
        precision: fp32 keeps the model's precision; fp16 computes floats in fp16; mixed computes in fp16 except
            `keep_fp32`.
        keep_fp32: names of nodes or operators ("Softmax") that compute in fp32 if the precision is mixed.
        shapes: the shapes of inputs, by name. Inputs whose shape is fixed in the model need none.
        constants: values of inputs that are to become constants, by name, such as inputs on which shapes or branches
            depend.
        layout: whether to keep the layout of the model's activations, or to change it to the Neural Engine's, (B, C, 1,
            S) (`triune.graph.ane`).
        wide: for precision fp16 or mixed, further nodes that compute in fp32, since a comparison found fp16 wrong there
            (`triune.graph.blame`). Each is known by the name that its first result has in the prepared graph.
        fits_half: for precision fp16, whether the graph is rewritten so that its numbers stay within fp16, and nodes
            that fp16 cannot compute stay in fp32 (`triune.graph.half`). Without it every float is fp16: that is for
            measuring what these rewrites are worth.
    """

    precision: Precision = Precision.FP32
    keep_fp32: frozenset[str] = frozenset()
    shapes: Mapping[str, InputShape] = field(default_factory=dict[str, InputShape])
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    layout: Layout = Layout.SOURCE
    wide: frozenset[str] = frozenset()
    fits_half: bool = True

    def __post_init__(self) -> None:
        if self.keep_fp32 and self.precision is not Precision.MIXED:
            raise InvalidArgumentError("nodes to keep in fp32 need precision 'mixed'; give --precision mixed")
        if self.precision is Precision.MIXED and not self.keep_fp32:
            raise InvalidArgumentError("precision 'mixed' needs nodes to keep in fp32; give --keep-fp32 NODE_OR_OP")
        if not self.fits_half and self.precision is not Precision.FP16:
            raise InvalidArgumentError(f"fits_half=False needs precision 'fp16', not '{self.precision.value}'")
