"""Composite operations: private functions with an attribute that names their operation. Core AI runs such a function as
one operation.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from typing import cast as cast_type

import numpy as np
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TypeProto, helper

from triune.coreai.library import Value, dialect, ir
from triune.coreai.lowering.values import cast, dtype_of, shape_of
from triune.graph.fused.call import RESULT
from triune.graph.passes.infer import Infer
from triune.graph.passes.tidy import Tidy
from triune.graph.values import attributes_of

_VERSION = 1
"""The version that declarations of composite operations state, as coreai-torch 0.4.3 writes it."""

_UNSIGNED = "_indices"
"""The ending of the names of operands that Apple's composites take as uint32."""


def body_of(function: FunctionProto, operands: Mapping[str, Value], opset: int) -> GraphProto:
    """Convert the body of a function to a graph, in which constants are initializers and all types are inferred.

    Args:
        function: a function of the model, whose body is in core ops.
        operands: the program's value for each operand, by the operand's name.
        opset: the version of ONNX's operators in the body.
    """
    inputs = [_input(name, value) for name, value in operands.items()]
    output = helper.make_value_info(RESULT, TypeProto())
    model: ModelProto = helper.make_model(
        helper.make_graph(list(function.node), function.name, inputs, [output]),
        opset_imports=[helper.make_opsetid("", opset)],
    )
    return Infer()(Tidy()(model)).graph


def passed(name: str, value: Value) -> Value:
    """Convert an operand to the type that the composite expects: uint32 if its name ends in `_indices`."""
    return cast(value, np.uint32) if name.endswith(_UNSIGNED) else value


def received(name: str, value: Value) -> Value:
    """Within the composite function, convert an operand that `passed` has converted to uint32 back to int32."""
    return cast(value, np.int32) if name.endswith(_UNSIGNED) else value


def declaration(node: NodeProto, names: Sequence[str]) -> Any:
    """The attribute that says what a function computes, in the form of coreai-torch's `_composite_declaration.py`."""
    settings = dict(attributes_of(node))
    kind = settings.pop("kind")
    whole = {"input_names": list(names), "output_names": [RESULT], "op_attrs": {**settings, "version": _VERSION}}
    return ir.Attribute.parse(f'#coreai.composite_declaration<"{kind}" = {_attribute(whole, "")!s}>')


_TRUTHS = frozenset({"is_causal", "interleaved"})
"""Boolean settings, which are 0 and 1 in ONNX's attributes."""


def _attribute(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        entries = cast_type("dict[str, Any]", value)
        return ir.DictAttr.get({key: _attribute(each, key) for key, each in entries.items()})
    if isinstance(value, list):
        return ir.ArrayAttr.get([_attribute(each, name) for each in cast_type("list[Any]", value)])
    if isinstance(value, str):
        return ir.StringAttr.get(value)
    if isinstance(value, float):
        return ir.FloatAttr.get(ir.F32Type.get(), value)
    if name in _TRUTHS:
        return ir.BoolAttr.get(bool(value))
    return ir.IntegerAttr.get(ir.IntegerType.get_signed(64), value)


def private_function(name: str, kinds: Sequence[Any], names: Sequence[str], declared: Any, module: Any) -> Any:
    """Add a private function that is never inlined.

    Args:
        name: the function's name.
        kinds: the types of its operands.
        names: the names of its operands.
        declared: the attribute from `declaration`.
        module: the block with the functions of the module, at whose beginning the function is added.
    """
    return dialect.GraphOp(
        name,
        list(kinds),
        [],
        list(names),
        [],
        private=True,
        no_inline=True,
        composite_decl=declared,
        ip=ir.InsertionPoint.at_block_begin(module),
    )


def _input(name: str, value: Value) -> Any:
    elem_type = helper.np_dtype_to_tensor_dtype(dtype_of(value))
    return helper.make_tensor_value_info(name, elem_type, list(shape_of(value)))
