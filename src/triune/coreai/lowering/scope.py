"""The values of a graph while it is lowered to Core AI."""

from typing import Any

from numpy.typing import NDArray
from onnx import GraphProto, TensorProto

from triune.coreai.library import Value
from triune.coreai.lowering.packing import packed
from triune.coreai.lowering.values import constant
from triune.graph.conversion import scope as conversion
from triune.graph.conversion.constants import narrow_constant


class Scope(conversion.Scope[Value]):
    """The values of Core AI in a graph, by the ONNX names of the values."""

    runtime = "Core AI"

    def __init__(
        self, graph: GraphProto, outer: conversion.Scope[Value] | None = None, *, is_packing: bool = False
    ) -> None:
        """If `is_packing`, weights are compressed without loss if that makes them smaller; see `packing`."""
        super().__init__(graph, outer)
        self._is_packing = is_packing

    def make(self, tensor: TensorProto) -> Value:
        """Write a tensor as a constant.

        Raises:
            UnsupportedError: no core op has the tensor's type.
        """
        array = self.narrowed(tensor)
        small = packed(array) if self._is_packing else None
        return constant(array) if small is None else small

    def known(self, value: Value) -> NDArray[Any] | None:
        """Return None: values that are known were folded to constants before."""
        del value

    def narrowed(self, tensor: TensorProto) -> NDArray[Any]:
        """The elements of a tensor, converted to fp16, fp32, int32 or bool."""
        return narrow_constant(tensor, self.runtime)
