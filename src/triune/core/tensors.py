"""What a model takes and gives: tensor specifications, and the signature they form."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from triune.core.datatypes import Array, DataType


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model file, as its runtime reports it.

    Attributes:
        name: the tensor's name in the file.
        datatype: its element type.
        shape: the whole shape, batch dimension included; -1 where a dimension is free.
        axes: for each dimension the file's own name of it ("batch", "sequence") or None. Two dimensions of one
            name have the same size in every call.
        is_optional: a call may leave it out.
        has_rank: the file says how many dimensions there are. If not, `shape` is ().
        is_state: an input in place of a buffer that the model would keep between calls: zeros where it is left out.
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
    """What is known of the first dimension of a model's tensors.

    SAME: it has one size in every required input and in every output, so that it is a batch. BY_VALUES: the values of
    the inputs decide the shape of an output, as a detector's do, so that it is none. UNKNOWN: neither is sure.
    """

    SAME = "same"
    BY_VALUES = "by values"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a model file, in the file's order.

    Attributes:
        inputs, outputs: the tensors.
        max_batch_size: the most rows that the file allows where the first dimension of every tensor is free. None where
            it sets no limit, 0 where that dimension is no batch dimension.
        rows: whether that dimension is a batch.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int | None = None
    rows: Rows = Rows.UNKNOWN


def format_shape(shape: Sequence[int]) -> str:
    """`[1,-1,384]`: a shape as messages show it."""
    return f"[{','.join(map(str, shape))}]"


def describe(array: Array) -> str:
    """`FP32[1,128]`: an array's datatype and shape as messages show them."""
    return f"{DataType.of(array).value}{format_shape(array.shape)}"
