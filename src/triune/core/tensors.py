"""Tensor specifications, and a model's signature: its inputs and outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from triune.core.datatypes import Array, DataType


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model file, as the runtime reports it.

    Attributes:
        name: the tensor's name in the file.
        datatype: its element type.
        shape: the whole shape, including the batch dimension; -1 is a free dimension.
        axes: the file's name for each dimension ("batch", "sequence"), or None. Two dimensions of the same name have
            the same size in every call.
        is_optional: whether a call may leave it out.
        has_rank: whether the file declares the rank. If not, `shape` is ().
        is_state: whether the input replaces a buffer that the model keeps between calls. If a call leaves it out, it is
            zeros.
    """

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    axes: tuple[str | None, ...] = ()
    is_optional: bool = False
    is_state: bool = False
    has_rank: bool = True

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype.value}{format_shape(self.shape) if self.has_rank else '[...]'}"


class Rows(Enum):
    """Whether the first dimension of a model's tensors is a batch dimension.

    SAME: yes, since it has the same size in every required input and in every output. BY_VALUES: no, since the shape of
    an output depends on the values of the inputs, as for a detector. OTHER: no, since the first dimension of an output
    is a constant or another dimension of the inputs, whatever name the file gives it. UNKNOWN: the file does not
    determine it.
    """

    SAME = "same"
    BY_VALUES = "by values"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a model file, in the file's order.

    Attributes:
        inputs, outputs: the tensors.
        max_batch_size: the largest batch that the file allows, if the first dimension of every tensor is free. None if
            the file sets no limit, 0 if the first dimension is not a batch dimension.
        rows: whether the first dimension is a batch dimension.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int | None = None
    rows: Rows = Rows.UNKNOWN


def format_shape(shape: Sequence[int]) -> str:
    """Format a shape for messages: `[1,-1,384]`."""
    return f"[{','.join(map(str, shape))}]"


def describe(array: Array) -> str:
    """Format an array's datatype and shape for messages: `FP32[1,128]`."""
    return f"{DataType.of(array).value}{format_shape(array.shape)}"
