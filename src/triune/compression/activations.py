"""Quantize activations to 8 bits, in observed ranges: QuantizeLinear and DequantizeLinear around operators."""

import logging
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from triune.compression.noise import sqnr_db
from triune.compression.observer import Range
from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.graph.packed import packed_of
from triune.graph.weight_files import array_of, num_bytes, with_data

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators whose weights and activations are multiplied in 8 bits."""

_BETWEEN = (
    *("Add", "Relu", "Clip", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Reshape"),
    *("Flatten", "Transpose", "Squeeze", "Unsqueeze", "Resize", "Pad"),
)
"""Operators that stay in 8 bits between convolutions. Between other products values stay floats: sums, norms and
softmax of transformers lose too much.
"""

_QUANTIZED = ("QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul")

_MOST_BYTES = (2**31 - 2**20) // 2
"""The most bytes of weights: ONNX Runtime's quantizer holds them twice in a protobuf message of at most 2 GiB."""

_CENTRED = 2 / 3
"""A range is widened to have the zero point 128 if its narrower side is at least this part of the wider one. A step
then grows by a fifth at most, and OpenVINO computes in less time (`runtimes.openvino.signed_activations`).
"""

_INFERRED = ("onnx.infer", "onnxruntime.quant")
"""ONNX Runtime's quantizer reads this property to skip shape inference, for which it would write the model to a
file.
"""


def require_floats(model: ModelProto) -> None:
    """Raise InvalidArgumentError if activations of a model are quantized already."""
    for node in model.graph.node:
        if node.op_type in _QUANTIZED:
            raise InvalidArgumentError(
                f"the model's activations are quantized already ({node.op_type} '{node.name}'): compress the model "
                "that it was made of, or leave --activations out"
            )


def require_small(model: ModelProto) -> None:
    """Raise UnsupportedError if a model is too large for ONNX Runtime's quantizer."""
    size = sum(num_bytes(each) for each in model.graph.initializer)
    if size > _MOST_BYTES:
        raise UnsupportedError(
            f"the model has {size / 2**30:.1f} GiB of weights; activations are quantized in models of up to "
            f"{_MOST_BYTES / 2**30:.1f} GiB: compress the weights alone (leave --activations out)"
        )


def operators_of(model: ModelProto) -> Sequence[str]:
    """The operators whose operands are quantized: products only, or more operators in convolutional networks."""
    has_convolutions = any(node.op_type in ("Conv", "ConvTranspose") for node in model.graph.node)
    return (*PRODUCTS, *_BETWEEN) if has_convolutions else PRODUCTS


def layers_of(model: ModelProto) -> list[str]:
    """The names of the nodes that multiply constant weights and can compute in 8 bits, in order."""
    batched = set(batched_of(model))
    return [node.name for node, _ in _products_of(model) if node.name not in batched]


def batched_of(model: ModelProto) -> list[str]:
    """The names of the MatMuls whose constant weights are many matrices, [..., K, N]. They cannot compute in 8 bits:
    ONNX Runtime has no such product of integers with a scale for each output channel.
    """
    return [node.name for node, weight in _products_of(model) if node.op_type == "MatMul" and len(weight.dims) > 2]


def _products_of(model: ModelProto) -> list[tuple[NodeProto, TensorProto]]:
    """The nodes that multiply constant weights, with the weights, in order."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    products = (node for node in model.graph.node if node.op_type in PRODUCTS)
    return [(node, constants[node.input[1]]) for node in products if node.input[1] in constants]


def values_of(model: ModelProto) -> list[str]:
    """The names of the values whose ranges are needed, in order. `model` has the types of its values."""
    kinds = {info.name: info.type.tensor_type.elem_type for info in _infos(model)}
    constants = {tensor.name for tensor in model.graph.initializer}
    wanted = operators_of(model)
    names = (name for node in model.graph.node if node.op_type in wanted for name in (*node.input, *node.output))
    floats = (name for name in names if name not in constants and kinds.get(name) == TensorProto.FLOAT)
    return list(dict.fromkeys(floats))


def without_range(model: ModelProto, ranges: Mapping[str, Range]) -> list[str]:
    """The names of the nodes that cannot compute in 8 bits since a value that they read or write was 0 in all samples:
    such a value has no range, and all other numbers would become 0.
    """
    nothing = {name for name, each in ranges.items() if each.low == each.high == 0}
    return [node.name for node in model.graph.node if nothing.intersection((*node.input, *node.output))]


def quantized(
    model: ModelProto, ranges: Mapping[str, Range], layers: Collection[str], *, is_per_channel: bool
) -> ModelProto:
    """Make a copy of a model in which some layers compute in 8 bits, by ONNX Runtime's quantizer.

    Activations are uint8 with a zero point, which is 128 for ranges that are nearly symmetric (see `centred`). Weights
    are int8 without a zero point, biases int32.

    Args:
        model: a model with types and shapes, whose nodes have unique names.
        ranges: the ranges of activations, by the value's name.
        layers: the nodes among `layers_of` that compute in 8 bits.
        is_per_channel: whether each output channel of weights has a scale.

    Raises:
        InternalError: the quantizer failed, or wrote a scale that is NaN.
    """
    # The library is imported when it is needed, since it takes a second.
    from onnxruntime.quantization import calibrate, qdq_quantizer, quant_utils

    library: Any = calibrate
    whole = with_data(model)
    whole.metadata_props.add(key=_INFERRED[0], value=_INFERRED[1])
    known = {
        name: library.TensorData(lowest=np.array(each.low, np.float32), highest=np.array(each.high, np.float32))
        for name, each in ((name, centred(each)) for name, each in ranges.items())
    }
    kept = [node.name for node, _ in _products_of(model) if node.name not in layers]
    kept += without_range(model, ranges)
    quantizer_class: Any = qdq_quantizer.QDQQuantizer
    types: Any = quant_utils.QuantType
    try:
        with _quiet():
            quantizer = quantizer_class(
                whole,
                is_per_channel,
                False,
                types.QInt8,
                types.QUInt8,
                library.TensorsData(library.CalibrationMethod.MinMax, known),
                [],
                kept,
                list(operators_of(model)),
                {
                    "MatMulConstBOnly": True,
                    "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
                    # Do not quantize outputs of products: nearly equal scores of classes would become equal.
                    "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
                },
            )
            quantizer.quantize_model()
            # Sort the nodes: the quantizer appends its own, and sorts them only when it writes a file itself.
            quantizer.model.topological_sort()
    except (ValueError, TypeError, AssertionError, KeyError, IndexError, RuntimeError, AttributeError) as error:
        raise InternalError(f"ONNX Runtime's quantizer fails: {type(error).__name__}: {error}") from error
    result: ModelProto = quantizer.model.model
    for position in reversed(range(len(result.metadata_props))):
        if result.metadata_props[position].key == _INFERRED[0]:
            del result.metadata_props[position]
    _check_scales(result)
    return result


def centred(values: Range) -> Range:
    """Widen a range that is nearly as wide below 0 as above it, so that the zero point of its uint8 codes is 128.

    With high = 127 * step and low = -128 * step the zero point is -low / step = 128. Other ranges are returned as they
    are.
    """
    narrow, wide = sorted((-values.low, values.high))
    if narrow <= 0 or narrow < _CENTRED * wide:
        return values
    step = max(-values.low / 128, values.high / 127)
    return Range(-128 * step, 127 * step)


def weights_db(source: ModelProto, result: ModelProto, layers: Collection[str]) -> dict[str, float]:
    """The signal-to-quantization-noise ratio, in dB, of the weights of each of `layers`, by the layer's name. Layers
    whose weights are not quantized in `result` are left out.
    """
    before = {tensor.name: tensor for tensor in source.graph.initializer}
    after = {tensor.name: tensor for tensor in result.graph.initializer}
    unpacking = {node.output[0]: node for node in result.graph.node if node.op_type == "DequantizeLinear"}
    now = {node.name: node.input[1] for node in result.graph.node if node.name in layers}
    found: dict[str, float] = {}
    for node in source.graph.node:
        if node.name not in layers or now.get(node.name) not in unpacking:
            continue
        packed = packed_of(unpacking[now[node.name]], after.get)
        if packed is not None:
            found[node.name] = sqnr_db(array_of(before[node.input[1]]), packed.whole())
    return found


def _infos(model: ModelProto) -> Iterator[Any]:
    yield from model.graph.value_info
    yield from model.graph.input
    yield from model.graph.output


def _check_scales(model: ModelProto) -> None:
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[1] not in tensors:
            continue
        scale = array_of(tensors[node.input[1]])
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise InternalError(f"ONNX Runtime's quantizer gives '{node.name}' a scale that is not a positive number")


@contextmanager
def _quiet() -> Generator[None]:
    """A context in which messages of ONNX Runtime's quantizer on the root logger are suppressed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
