"""Counterparts in the graph for values of a program that ONNX has no type for."""

from dataclasses import dataclass
from typing import TypeAlias

from triune.graph.raising.graph import Tensor


@dataclass(frozen=True, slots=True)
class Complex:
    """A tensor of complex numbers, as a tensor of real and one of imaginary parts."""

    real: Tensor
    imaginary: Tensor


@dataclass(frozen=True, slots=True)
class Sparse:
    """A sparse tensor.

    Attributes:
        dense: all elements, with zeros where the mask is 0.
        mask: UINT8 or BOOL, nonzero where the tensor has values.
    """

    dense: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class State:
    """A handle, by which the program reads and writes the state `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class Token:
    """A token, which orders reads and writes of handles. The graph keeps the order of the program anyway."""


Held: TypeAlias = Tensor | Complex | Sparse | State | Token
