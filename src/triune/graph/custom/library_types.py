"""Types of the results of operators that shared libraries compute. ONNX's shape inference does not know them."""

from typing import Final

from onnx import ModelProto, TensorProto, ValueInfoProto

from triune.graph.custom.collection import CustomOps
from triune.graph.custom.foreign import foreign_nodes
from triune.graph.custom.resolve import numpy_nodes
from triune.graph.passes.infer import Infer
from triune.graph.session import GraphSession

_TYPES: Final = {
    "tensor(float)": TensorProto.FLOAT,
    "tensor(float16)": TensorProto.FLOAT16,
    "tensor(bfloat16)": TensorProto.BFLOAT16,
    "tensor(double)": TensorProto.DOUBLE,
    "tensor(bool)": TensorProto.BOOL,
    "tensor(string)": TensorProto.STRING,
    "tensor(int8)": TensorProto.INT8,
    "tensor(int16)": TensorProto.INT16,
    "tensor(int32)": TensorProto.INT32,
    "tensor(int64)": TensorProto.INT64,
    "tensor(uint8)": TensorProto.UINT8,
    "tensor(uint16)": TensorProto.UINT16,
    "tensor(uint32)": TensorProto.UINT32,
    "tensor(uint64)": TensorProto.UINT64,
}


def typed_by_libraries(model: ModelProto, ops: CustomOps) -> ModelProto:
    """Infer the types of the values behind operators of shared libraries, of which ONNX Runtime tells the results'
    types.

    Args:
        model: a model whose other types are inferred; changed.
        ops: the custom operators. With those that numpy computes, nothing is inferred.

    Returns:
        the model.

    Raises:
        InvalidArgumentError: a library cannot be loaded.
        UnsupportedError: ONNX Runtime cannot load the model with these libraries.
    """
    known = {info.name for info in model.graph.value_info if info.type.tensor_type.elem_type}
    known |= {info.name for info in model.graph.output if info.type.tensor_type.elem_type}
    foreign = {(node.domain, node.op_type) for node in foreign_nodes(model)}
    names = [
        name
        for node in model.graph.node
        if (node.domain, node.op_type) in foreign
        for name in node.output
        if name and name not in known
    ]
    if not ops.libraries or not names or numpy_nodes(model, ops):
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(ValueInfoProto(name=name) for name in names)
    session = GraphSession(copy, "the model", optimizes=False, libraries=ops.libraries)
    for name, kind in session.output_types.items():
        if kind in _TYPES:
            info = ValueInfoProto(name=name)
            info.type.tensor_type.elem_type = _TYPES[kind]
            model.graph.value_info.append(info)
    return Infer()(model)
