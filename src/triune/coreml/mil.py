"""ML Programs in memory: the checked content of a package's MIL protobuf, with constants as arrays.

`read_program` makes these frozen dataclasses; raising and the interpreter read them. Their names are taken from MIL.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from triune.core.errors import InvalidArgumentError
from triune.graph.raising.types import Array, DType, TensorType


@dataclass(frozen=True, slots=True)
class ListType:
    """A list of tensors; a `length` of None is known only at run time."""

    element: TensorType
    length: int | None


@dataclass(frozen=True, slots=True)
class StateType:
    """A buffer that keeps its content between calls."""

    wrapped: TensorType


@dataclass(frozen=True, slots=True)
class DictionaryType:
    """Class labels (text or int64) and their probabilities: what `classify` returns."""

    key: DType
    value: DType


Type: TypeAlias = TensorType | ListType | StateType | DictionaryType


@dataclass(frozen=True, slots=True)
class Name:
    """An argument that is the name of a value: an input of a block, or an output of an earlier operation."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Elements of less than 8 bits as in a weight file: packed one after the other, lowest bits first.

    Attributes:
        data: the bytes, mapped from the file; ceil(elements x bits / 8) of them.
        bits: the width of an element: 1, 2, 3, 4 or 6.
        is_signed: whether an element is in two's complement.
        shape: the tensor's shape.
    """

    data: NDArray[np.uint8]
    bits: int
    is_signed: bool
    shape: tuple[int, ...]

    def unpack(self) -> Array:
        """Convert to one byte for each element: int8 or uint8, of `shape`."""
        count = math.prod(self.shape)
        if 8 % self.bits == 0:
            shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
            elements = (self.data[:, None] >> shifts) & np.uint8((1 << self.bits) - 1)
        else:
            bits = np.unpackbits(self.data, count=count * self.bits, bitorder="little").reshape(count, self.bits)
            elements = np.packbits(bits, axis=1, bitorder="little")
        elements = elements.reshape(-1)[:count].reshape(self.shape)
        if not self.is_signed:
            return elements
        sign = np.uint8(1 << (self.bits - 1))
        return ((elements ^ sign) - sign).view(np.int8)


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """An argument or attribute that is a constant.

    Attributes:
        stored: an array (rank 0 for a scalar; an object array of str for strings), a tuple of arrays for a list, or
            packed elements.
        dtype: its type in MIL, which may differ from that of the array: int4 is stored as int8.
    """

    stored: Array | tuple[Array, ...] | Packed
    dtype: DType

    @property
    def value(self) -> Array | tuple[Array, ...]:
        """The array, or the arrays of a list.

        Packed elements are unpacked by each call, so that a caller should not keep them longer than needed.
        """
        return self.stored.unpack() if isinstance(self.stored, Packed) else self.stored

    @property
    def array(self) -> Array:
        """The value of a tensor. Raises InvalidArgumentError for a list."""
        value = self.value
        if isinstance(value, tuple):
            raise InvalidArgumentError(f"a list of {len(value)} where a tensor is expected")
        return value

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a tensor, or (length,) of a list. Nothing is unpacked."""
        return (len(self.stored),) if isinstance(self.stored, tuple) else self.stored.shape


Argument: TypeAlias = Name | Constant


@dataclass(frozen=True, slots=True)
class Output:
    """A value that an operation, a function or a block defines."""

    name: str
    type: Type


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation.

    Attributes:
        op: the type of the operation in MIL, such as "conv". A `const` has its value in the attribute "val".
        inputs: parameter name to arguments: one, or several where the parameter takes a tuple (concat's `values`).
            Parameters left to their default are absent.
        outputs: the values that the operation defines.
        blocks: nested blocks: cond has two, while_loop has the condition and the body.
        attributes: `name`; `val` of a const; and the parameters of constexpr operations, as iOS 16 writes them.
    """

    op: str
    inputs: Mapping[str, tuple[Argument, ...]]
    outputs: tuple[Output, ...]
    blocks: tuple["Block", ...] = ()
    attributes: Mapping[str, Constant] = field(default_factory=dict[str, Constant])

    @property
    def name(self) -> str:
        """The name of the first output, which is unique in the function. Messages use it."""
        return self.outputs[0].name if self.outputs else self.op


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Operations in order of execution, each name defined before it is used."""

    inputs: tuple[Output, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function of a program. Inputs of type StateType are its states.

    Attributes:
        opset: the name of the operator set, such as "CoreML7".
    """

    name: str
    inputs: tuple[Output, ...]
    opset: str
    block: Block


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """The functions of an ML Program, by name."""

    functions: Mapping[str, Function]
