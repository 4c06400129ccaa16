"""Masks that fp16 can hold."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from triune.graph.ane.index import FLOATS, Index, label
from triune.graph.ane.report import Report
from triune.graph.ane.step import Step
from triune.graph.values import attributes_of
from triune.graph.weight_files import array_of
from triune.graph.weights import Large

MASKED = -40_000.0
"""What masks a score. Added to any score it stays above fp16's least number, -65504, and its exponential is 0."""

_PASSED_ON: Mapping[str, tuple[int, ...] | None] = {
    **dict.fromkeys(
        ["Reshape", "Expand", "Transpose", "Slice", "Unsqueeze", "Squeeze", "Tile", "Trilu", "Gather"], (0,)
    ),
    **dict.fromkeys(["Add", "Max", "Min", "Concat"], None),
    "Cast": (0,),
    "Where": (1, 2),
    "ScatterND": (0, 2),
    "ScatterElements": (0, 2),
}
"""The operators that pass a mask on, and of which operands; None for all."""

_WHOLE = frozenset(["Sub", "Add", "Mul", "Max", "Min", *_PASSED_ON])


LOWEST = float(np.finfo(np.float32).min)
"""What is above -inf alone, for masks that `graph.half` looks at afterwards."""


class FiniteMasks(Step):
    """Given masks of -inf, fp32's least number and their like, before a Softmax. Result: masks of -40000, or `masked`.

    Constants, and products of a constant and whole numbers such as `(1 - mask) * -3.4e38`. The answers are the same but
    in a row in which everything is masked, which is NaN for -inf, and means nothing for the others.
    A Softmax whose NaN are caught stays.
    """

    name = "finite_masks"

    def __init__(self, report: Report, large: Large | None = None, masked: float = MASKED) -> None:
        """`masked` is put in place of what is less."""
        super().__init__(report, large)
        self._masked = masked

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`."""
        index = self._index(model.graph)
        masks = _Masks(index, self._report, self._masked)
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            finite = masks.finite(node.input[0]) if node.op_type == "Softmax" else None
            added = index.take()
            if finite is not None and finite != node.input[0]:
                if any(reader.op_type == "Equal" for reader in index.readers(node.output[0])):
                    self._report.leave(self.name, label(node), "its NaN, of rows that are all masked, are caught")
                else:
                    node.input[0] = finite
                    self._report.change(self.name, label(node), f"masks of {self._masked:.6g}")
            nodes += [*added, node]
        index.replace(nodes)
        return model


class _Masks:
    """Values with large negative numbers replaced; each is made once."""

    def __init__(self, index: Index, report: Report, masked: float) -> None:
        self._index = index
        self._report = report
        self._masked = masked
        self._made: dict[str, str] = {}

    def finite(self, name: str) -> str:
        """The same value, of finite masks; `name` itself where there is nothing to replace."""
        if name not in self._made:
            self._made[name] = self._constant(name) or self._computed(name) or name
        return self._made[name]

    def _constant(self, name: str) -> str | None:
        array = self._index.constant(name)
        if array is None or self._index.values.elem_type(name) not in FLOATS or not (array < self._masked).any():
            return None
        return self._index.weight(np.maximum(array, self._held(array.dtype)))

    def _held(self, dtype: np.dtype[Any]) -> Any:
        """What masks, or the least number that fp16 has."""
        return dtype.type(max(self._masked, float(np.finfo(dtype).min)))

    def _computed(self, name: str) -> str | None:
        node = self._index.maker(name)
        if node is None:
            return None
        if node.op_type == "ConstantOfShape":
            return self._filled(node)
        if node.op_type == "Mul":
            places = self._factors(node)
        elif node.op_type in _PASSED_ON:
            given = _PASSED_ON[node.op_type]
            places = tuple(range(len(node.input))) if given is None else given
        else:
            return None
        inputs = list(node.input)
        for place in places:
            if self._is_mask(inputs[place], node.op_type):
                inputs[place] = self.finite(inputs[place])
        return None if inputs == list(node.input) else self._copy(node, inputs)

    def _factors(self, product: NodeProto) -> tuple[int, ...]:
        """The factors of whole numbers: half a mask of -3.4e38 masks still, half of -40000 may not."""
        index = self._index
        places = tuple(place for place in (0, 1) if self._is_whole(product.input[1 - place]))
        for place in {0, 1}.difference(places):
            array = index.constant(product.input[place])
            if array is not None and array.dtype.kind == "f" and (array < self._masked).any():
                self._report.leave(FiniteMasks.name, label(product), "the mask may be other than whole numbers")
        return places

    def _is_mask(self, name: str, op_type: str) -> bool:
        """A cast or gathered value is followed where it is a float; a factor where it is a constant."""
        is_float = self._index.values.elem_type(name) in FLOATS
        return is_float and (op_type != "Mul" or self._index.is_constant(name))

    def _filled(self, node: NodeProto) -> str | None:
        tensor = attributes_of(node).get("value")
        if tensor is None or tensor.data_type not in FLOATS:
            return None
        array = array_of(tensor)
        if not (array < self._masked).any():
            return None
        value = numpy_helper.from_array(np.full_like(array, self._held(array.dtype)))
        return self._index.build.op("ConstantOfShape", node.input[0], value=value)

    def _copy(self, node: NodeProto, inputs: list[str]) -> str:
        copy = helper.make_node(node.op_type, inputs, [self._index.build.name()])
        copy.name = copy.output[0]
        copy.attribute.extend(node.attribute)
        self._index.build.nodes.append(copy)
        self._index.learn(copy.output[0], node.output[0])
        return copy.output[0]

    def _is_whole(self, name: str) -> bool:
        """Is it a tensor of whole numbers, whatever its type?"""
        index = self._index
        array = index.constant(name)
        if array is not None:
            return array.dtype.kind in "biu" or bool((array == np.round(array)).all())
        elem_type = index.values.elem_type(name)
        if elem_type and elem_type not in (*FLOATS, TensorProto.DOUBLE, TensorProto.BFLOAT16):
            return True
        node = index.maker(name)
        if node is None or node.op_type not in _WHOLE:
            return False
        given = _PASSED_ON.get(node.op_type)
        return all(self._is_whole(node.input[place]) for place in given or range(len(node.input)))
