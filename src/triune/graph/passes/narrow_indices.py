"""Store indices in int32 where they fit, so that no Cast to int64 is needed."""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from triune.graph.editing import Edit, edit_graphs
from triune.graph.passes.run import GraphPass
from triune.graph.values import attributes_of

_POSITIONS = {"Gather": 1, "GatherElements": 1, "ScatterElements": 1}
"""Operators that take indices of int32 as well as of int64, and the position of the indices."""

_LOWEST, _HIGHEST = -(2**31), 2**31 - 1

_LEAST_ELEMENTS = 2
"""Single indices are not converted: this would save nothing, and other nodes often read them too."""


class NarrowIndices(GraphPass):
    """Given indices of int64 that only Gather, GatherElements or ScatterElements read: a Cast of int32, or a constant
    within int32. Result: the value of int32 that was cast, or a constant of int32.
    """

    name = "narrow_indices"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Store indices in `model`, in place, in int32. Its types must have been inferred (`Infer`)."""
        edit_graphs(model, _narrow)
        return model


def _narrow(edit: Edit) -> None:
    for node in edit.each(*_POSITIONS):
        name = node.input[_POSITIONS[node.op_type]]
        if edit.values.elem_type(name) != TensorProto.INT64:
            continue
        cast = edit.producer(name, "Cast")
        if cast is not None and edit.values.elem_type(cast.input[0]) == TensorProto.INT32:
            _read(edit, node, cast.input[0])
            if attributes_of(cast) and not edit.readers(name) and not edit.is_kept(name):
                edit.drop(cast)
            continue
        shape = edit.values.static_shape(name)
        if shape is None or edit.values.tensor(name) is None or int(np.prod(shape, dtype=np.int64)) < _LEAST_ELEMENTS:
            continue
        if edit.is_kept(name) or any(not _takes_int32(each, name) for each in edit.readers(name)):
            continue
        array = edit.constant(name)
        if array is not None and array.size and array.min() >= _LOWEST and array.max() <= _HIGHEST:
            narrow = edit.weight(f"{name}/int32", array.astype(np.int32))
            for reader in list(edit.readers(name)):
                _read(edit, reader, narrow)


def _takes_int32(node: NodeProto, name: str) -> bool:
    position = _POSITIONS.get(node.op_type)
    if position is None or node.domain not in ("", "ai.onnx"):
        return False
    return [at for at, each in enumerate(node.input) if each == name] == [position]


def _read(edit: Edit, node: NodeProto, name: str) -> None:
    inputs = list(node.input)
    inputs[_POSITIONS[node.op_type]] = name
    edit.set_inputs(node, inputs)
