"""What a user may say about a conversion, whatever it converts to."""

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
    """How the program's activations lie in memory."""

    SOURCE = "source"
    ANE = "ane"


@dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """How to convert.

    Attributes:
        precision: fp32 keeps what the model says; fp16 computes floats in fp16; mixed is fp16 but for `keep_fp32`.
        keep_fp32: names of nodes or operators ("Softmax") that compute in fp32 where the precision is mixed.
        shapes: by input. Inputs of fixed shape need none.
        constants: values for inputs that are to be no inputs of the result: what decides shapes or branches.
        layout: as the source has it, or transformers as the Neural Engine likes them (`triune.graph.ane`).
    """

    precision: Precision = Precision.FP32
    keep_fp32: frozenset[str] = frozenset()
    shapes: Mapping[str, InputShape] = field(default_factory=dict[str, InputShape])
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    layout: Layout = Layout.SOURCE

    def __post_init__(self) -> None:
        if self.keep_fp32 and self.precision is not Precision.MIXED:
            raise InvalidArgumentError("nodes kept in fp32 need precision 'mixed'; give --precision mixed")
        if self.precision is Precision.MIXED and not self.keep_fp32:
            raise InvalidArgumentError("precision 'mixed' needs nodes to keep in fp32; give --keep-fp32 NODE_OR_OP")
