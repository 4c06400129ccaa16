"""Read the signature of an ONNX file without a runtime, and explain what is wrong with an invalid file."""

from pathlib import Path

import onnx.checker
from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto

from triune.core.datatypes import DataType
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.tensors import Signature, TensorSpec
from triune.graph.bare import NO_NAMES
from triune.graph.defaults import OVERRIDABLE_FROM_IR
from triune.graph.inference_apart import try_infer_shapes
from triune.graph.load import load, read_model
from triune.graph.weights import Large, without_large
from triune.runtimes.failures import reason_of
from triune.runtimes.onnx.rows import rows_of

_DATATYPES: dict[int, DataType] = {
    TensorProto.BOOL: DataType.BOOL,
    TensorProto.UINT8: DataType.UINT8,
    TensorProto.UINT16: DataType.UINT16,
    TensorProto.UINT32: DataType.UINT32,
    TensorProto.UINT64: DataType.UINT64,
    TensorProto.INT8: DataType.INT8,
    TensorProto.INT16: DataType.INT16,
    TensorProto.INT32: DataType.INT32,
    TensorProto.INT64: DataType.INT64,
    TensorProto.FLOAT16: DataType.FP16,
    TensorProto.FLOAT: DataType.FP32,
    TensorProto.DOUBLE: DataType.FP64,
    TensorProto.BFLOAT16: DataType.BF16,
    TensorProto.STRING: DataType.BYTES,
}


def read_signature(path: Path) -> Signature:
    """The inputs and outputs that an ONNX file declares.

    An initializer that is also listed as a graph input is an optional input: its value is the default. A tensor of
    unknown rank has the shape ().

    Raises:
        InvalidArgumentError: the file is not an ONNX model, is truncated, or refers to a missing file.
        UnsupportedError: an input or output is not a tensor of a KServe datatype.
    """
    return signature_of(read_model(path), path)


def signature_of(model: ModelProto, path: Path) -> Signature:
    """Read the signature of a model in memory, like `read_signature`."""
    graph = model.graph
    declared = graph.output
    if any(not _is_shape_known(value.type) for value in declared):
        inferred = try_infer_shapes(without_large(model))
        declared = inferred.graph.output if inferred is not None else declared
    initializers = {tensor.name for tensor in graph.initializer}
    initializers |= {tensor.values.name for tensor in graph.sparse_initializer}
    can_override = model.ir_version >= OVERRIDABLE_FROM_IR
    inputs = tuple(
        _translate(value, path, is_input=True, has_default=value.name in initializers)
        for value in graph.input
        if can_override or value.name not in initializers
    )
    outputs = tuple(_translate(value, path, is_input=False) for value in declared)
    return Signature(inputs, outputs, rows=rows_of(model, inputs, outputs))


def broken_part(path: Path) -> str | None:
    """The error that ONNX's checker finds in a file; None if there is none.

    The check is slow, and therefore used only to explain a failure. Large weights are removed before, to make it
    shorter: ONNX's checker blocks all other threads.
    """
    try:
        model = load(path)
        model.ir_version = max(model.ir_version, OVERRIDABLE_FROM_IR)
        Large().take(model)
        # Ignore pyright here, since the type hints of onnx are incomplete.
        onnx.checker.check_model(model)  # pyright: ignore[reportUnknownMemberType]
    except (onnx.checker.ValidationError, InvalidArgumentError) as error:
        return reason_of(error)
    return None


def _is_shape_known(of: TypeProto) -> bool:
    return of.tensor_type.elem_type != TensorProto.UNDEFINED and of.tensor_type.HasField("shape")


def _translate(value: ValueInfoProto, path: Path, *, is_input: bool, has_default: bool = False) -> TensorSpec:
    what = f"{'input' if is_input else 'output'} '{value.name}' of '{path}'"
    is_optional_type = value.type.WhichOneof("value") == "optional_type"
    of = value.type.optional_type.elem_type if is_optional_type else value.type
    kind = of.WhichOneof("value")
    if kind is None or (is_optional_type and not is_input):
        raise UnsupportedError(f"{what} has {'an optional' if is_optional_type else 'no'} type; Triune serves tensors")
    if kind != "tensor_type":
        raise UnsupportedError(f"{what} is a {kind.removesuffix('_type')}; Triune serves tensors")
    datatype = _DATATYPES.get(of.tensor_type.elem_type)
    if datatype is None:
        number = of.tensor_type.elem_type
        name = TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else number
        raise UnsupportedError(f"{what} has the element type {name}, for which KServe has no datatype")
    dims = of.tensor_type.shape.dim
    return TensorSpec(
        value.name,
        datatype,
        tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else -1 for dim in dims),
        tuple(dim.dim_param if dim.dim_param not in NO_NAMES else None for dim in dims),
        is_optional=is_optional_type or has_default,
        has_rank=not is_input or of.tensor_type.HasField("shape"),
    )
