"""Make a model valid for the passes: inline functions, make names in subgraphs unique, infer shapes."""

from collections.abc import Mapping

import onnx.inliner
from onnx import ModelProto

from triune.core.errors import UnsupportedError
from triune.graph.conversion.shapes import InputShape, apply_shapes
from triune.graph.custom import NO_CUSTOM_OPS, CustomOps
from triune.graph.custom.resolve import numpy_nodes
from triune.graph.custom.stages import typed_model
from triune.graph.declared import give_output_shapes, infer_anew, take_output_shapes
from triune.graph.defaults import OVERRIDABLE_FROM_IR, free_initializers
from triune.graph.editing import opset_of
from triune.graph.load import require_valid
from triune.graph.passes.infer import Infer
from triune.graph.shadows import rename_shadows
from triune.graph.sparse import make_dense
from triune.graph.weight_files import WeightFile
from triune.graph.weights import Large

_FIRST_OPSET = 7
"""The oldest operator set that ONNX Runtime promises to support completely."""


def prepared(
    model: ModelProto, shapes: Mapping[str, InputShape], file: WeightFile, ops: CustomOps = NO_CUSTOM_OPS
) -> tuple[ModelProto, list[str]]:
    """Make a copy of a model that is valid and has types and shapes, as far as they can be inferred; nothing else is
    changed.

    Args:
        model: not changed.
        shapes: sizes to fix, by input.
        file: the scratch file for large weights.
        ops: the custom operators that numpy computes, which state the types of their results.

    Returns:
        the copy, and notes for the user.

    Raises:
        InvalidArgumentError: the model is not valid ONNX, or a shape contradicts it.
        UnsupportedError: its operator set is too old.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    notes: list[str] = []
    if opset_of(copy) < _FIRST_OPSET:
        raise UnsupportedError(
            f"the model is of operator set {opset_of(copy)}; the oldest that is optimized is {_FIRST_OPSET}: export it "
            "again for a newer one"
        )
    if copy.ir_version < OVERRIDABLE_FROM_IR:
        notes.append(
            f"IR version {copy.ir_version} became {OVERRIDABLE_FROM_IR}: before that, initializers had to be inputs"
        )
        free_initializers(copy)
    apply_shapes(copy, shapes)
    large = Large(file)
    large.take(copy)
    if copy.functions:
        notes.append(f"{len(copy.functions)} functions of the model were inlined")
        copy = onnx.inliner.inline_local_functions(copy)
    make_dense(copy.graph)
    rename_shadows(copy.graph)
    require_valid(copy)
    declared = take_output_shapes(copy)
    copy = Infer()(infer_anew(copy))
    if nodes := numpy_nodes(copy, ops):
        copy, _ = typed_model(copy, ops, nodes)
    give_output_shapes(copy, declared)
    large.give_back(copy)
    return copy, notes
