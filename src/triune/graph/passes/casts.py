"""Join successive Casts if the type between them can represent every value."""

from collections.abc import Mapping

from onnx import ModelProto, TensorProto

from triune.graph.editing import Edit, edit_graphs
from triune.graph.passes.run import GraphPass
from triune.graph.values import attributes_of

_T = TensorProto

_FLOATS = (_T.FLOAT, _T.DOUBLE)

_HELD_BY: Mapping[int, frozenset[int]] = {
    _T.UINT8: frozenset([_T.UINT16, _T.INT16, _T.INT32, _T.UINT32, _T.INT64, _T.UINT64, _T.FLOAT16, *_FLOATS]),
    _T.INT8: frozenset([_T.INT16, _T.INT32, _T.INT64, _T.FLOAT16, *_FLOATS]),
    _T.UINT16: frozenset([_T.INT32, _T.UINT32, _T.INT64, _T.UINT64, *_FLOATS]),
    _T.INT16: frozenset([_T.INT32, _T.INT64, *_FLOATS]),
    _T.INT32: frozenset([_T.INT64, _T.DOUBLE]),
    _T.UINT32: frozenset([_T.INT64, _T.UINT64, _T.DOUBLE]),
    _T.FLOAT16: frozenset(_FLOATS),
    _T.BFLOAT16: frozenset(_FLOATS),
    _T.FLOAT: frozenset([_T.DOUBLE]),
}
"""For each type, the types that have all of its values."""


class Casts(GraphPass):
    """Given a Cast of a Cast, whose type in between can represent every value of the first operand. Result: one Cast of
    that operand, or none if the final type is the operand's.
    """

    name = "casts"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Join successive Casts in `model`, in place. Its types must have been inferred (`Infer`)."""
        edit_graphs(model, _join)
        return model


def _join(edit: Edit) -> None:
    for node in edit.each("Cast"):
        first = edit.producer(node.input[0], "Cast")
        if first is None:
            continue
        own, between = edit.values.elem_type(first.input[0]), attributes_of(first).get("to")
        if between not in _HELD_BY.get(own, ()):
            continue
        if attributes_of(node).get("to") == own:
            if edit.bypass(node, first.input[0]) and not (
                edit.readers(first.output[0]) or edit.is_kept(first.output[0])
            ):
                edit.drop(first)
        elif edit.only_reader(first.output[0]) is node:
            edit.set_inputs(node, [first.input[0]])
            edit.drop(first)
