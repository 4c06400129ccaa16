"""Triton's public example models, rewritten from their published configs, and an identity model for measurements."""

from collections.abc import Sequence

from onnx import TensorProto

from triune.core.units import Unit
from triune.zoo.graph_builder import GraphBuilder
from triune.zoo.packages import Sources
from triune.zoo.recipe import ModelFolder, Recipe, placement

# ONNX Runtime reads opset 17 and IR version 8 since 1.14, so that an older server can serve the same files.
_OPSET = 17
_IR_VERSION = 8
_NUM_VALUES = 16


def _add_sub(name: str, datatype: int, triton_type: str, computed_in: int) -> Recipe:
    """A model of 16 values with OUTPUT0 = INPUT0 + INPUT1 and OUTPUT1 = INPUT0 - INPUT1.

    It computes in the datatype `computed_in`.
    """

    def build(_: Sources, units: Sequence[Unit]) -> ModelFolder:
        graph = GraphBuilder(name, opset=_OPSET, ir_version=_IR_VERSION)
        shape = ["batch", _NUM_VALUES]
        values = [graph.input(each, datatype, shape) for each in ("INPUT0", "INPUT1")]
        is_cast = computed_in != datatype
        if is_cast:
            values = [graph.add("Cast", value, to=computed_in) for value in values]
        for output, op in (("OUTPUT0", "Add"), ("OUTPUT1", "Sub")):
            if is_cast:
                graph.add("Cast", graph.add(op, *values), to=datatype, output=output)
            else:
                graph.add(op, *values, output=output)
            graph.output(output, datatype, shape)
        config = f"""\
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: 8

input [
  {{ name: "INPUT0", data_type: {triton_type}, dims: [ 16 ] }},
  {{ name: "INPUT1", data_type: {triton_type}, dims: [ 16 ] }}
]
output [
  {{ name: "OUTPUT0", data_type: {triton_type}, dims: [ 16 ] }},
  {{ name: "OUTPUT1", data_type: {triton_type}, dims: [ 16 ] }}
]

"""
        return ModelFolder(config + placement(units), {"1/model.onnx": graph.build()})

    return Recipe(name, build)


def _identity(name: str, datatype: int, triton_type: str, max_batch_size: int, size: int | None) -> Recipe:
    """A model with OUTPUT0 = INPUT0. Besides the batch it has one dimension of `size` values; None: dynamic."""

    def build(_: Sources, units: Sequence[Unit]) -> ModelFolder:
        graph = GraphBuilder(name, opset=_OPSET, ir_version=_IR_VERSION)
        shape = [*(["batch"] if max_batch_size else []), size or "length"]
        graph.output(graph.add("Identity", graph.input("INPUT0", datatype, shape), output="OUTPUT0"), datatype, shape)
        config = f"""\
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {max_batch_size}

input [ {{ name: "INPUT0", data_type: {triton_type}, dims: [ {size or -1} ] }} ]
output [ {{ name: "OUTPUT0", data_type: {triton_type}, dims: [ {size or -1} ] }} ]

"""
        return ModelFolder(config + placement(units), {"1/model.onnx": graph.build()})

    return Recipe(name, build)


RECIPES = (
    _add_sub("simple", TensorProto.INT32, "TYPE_INT32", TensorProto.INT32),
    # ONNX Runtime does not add INT8. INT32, cast back to INT8, wraps around in the same way.
    _add_sub("simple_int8", TensorProto.INT8, "TYPE_INT8", TensorProto.INT32),
    # The strings are decimal numbers.
    _add_sub("simple_string", TensorProto.STRING, "TYPE_STRING", TensorProto.INT32),
    _identity("simple_identity", TensorProto.STRING, "TYPE_STRING", max_batch_size=8, size=None),
    _identity("identity_fp32", TensorProto.FLOAT, "TYPE_FP32", max_batch_size=0, size=_NUM_VALUES),
)
