"""What stands for a program's values while it is raised: tensors, and what ONNX has no type for."""

from dataclasses import dataclass
from typing import TypeAlias

from triune.graph.raising.graph import Tensor


@dataclass(frozen=True, slots=True)
class Complex:
    """A tensor of complex numbers: its two parts."""

    real: Tensor
    imaginary: Tensor


@dataclass(frozen=True, slots=True)
class Sparse:
    """A sparse tensor.

    Attributes:
        dense: with zeros where the mask is 0.
        mask: of UINT8 or BOOL: where it has values.
    """

    dense: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class State:
    """A handle: the state of that name."""

    name: str


@dataclass(frozen=True, slots=True)
class Token:
    """What orders reads and writes of handles; here they are in the program's order."""


Held: TypeAlias = Tensor | Complex | Sparse | State | Token
