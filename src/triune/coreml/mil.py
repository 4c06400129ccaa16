"""ML Programs in memory: the content of a package's MIL protobuf, checked, with constants as arrays.

Frozen and plain: the reader makes them, the raiser and the interpreter read them. Names are MIL's own.
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
    """An argument that names a value: a block's input, or an earlier operation's output."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Elements under a byte as a weight file holds them: one after the other, lowest bits first.

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
        """One element to a byte: int8 or uint8 of `shape`."""
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
    """An argument or attribute given in place.

    Attributes:
        stored: an array (rank 0 for a scalar; text is an object array of str), a tuple of them for a list, or packed.
        dtype: its MIL type, which says more than the array's: int4 is held as int8.
    """

    stored: Array | tuple[Array, ...] | Packed
    dtype: DType

    @property
    def value(self) -> Array | tuple[Array, ...]:
        """The array, or the list's arrays. Packed elements are unpacked each time: keep them no longer than needed."""
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
        """The tensor's shape, or (length,) of a list; unpacks nothing."""
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
        op: its name in MIL ("conv"). A `const` carries its value as the attribute "val".
        inputs: parameter name to arguments: one, or several where the parameter takes a tuple (concat's `values`).
            Parameters left to their default are absent.
        outputs: what it defines.
        blocks: nested blocks: cond has two, while_loop has the condition and the body.
        attributes: const's `val`, constexpr ops' parameters in iOS16 form, and `name`.
    """

    op: str
    inputs: Mapping[str, tuple[Argument, ...]]
    outputs: tuple[Output, ...]
    blocks: tuple["Block", ...] = ()
    attributes: Mapping[str, Constant] = field(default_factory=dict[str, Constant])

    @property
    def name(self) -> str:
        """What messages call it: the name of its first output, which is unique in the function."""
        return self.outputs[0].name if self.outputs else self.op


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Operations in order of execution, each name defined before it is used."""

    inputs: tuple[Output, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function of a program; its inputs' StateTypes are its states.

    Attributes:
        opset: the operator set's name ("CoreML7").
    """

    name: str
    inputs: tuple[Output, ...]
    opset: str
    block: Block


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """The functions of an ML Program, by name."""

    functions: Mapping[str, Function]
