"""Replaces ONNX Runtime's operator for products with quantized weights (MatMulNBits)."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from triune.core.errors import UnsupportedError
from triune.graph.builder import Builder
from triune.graph.names import Names
from triune.graph.passes.n_bits import DOMAIN, replaced
from triune.graph.passes.run import GraphPass
from triune.graph.values import attributes_of, constant_tensor
from triune.graph.weight_files import array_of

_CODES: Final = {4: TensorProto.UINT4, 8: TensorProto.UINT8}
_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16)


class Products(GraphPass):
    """Given MatMulNBits without contradictions, with weights of 4 or 8 bits. Result: MatMul with the transpose of
    DequantizeLinear of blocks.

    The codes stay as they are in the file: [out, in], with two 4-bit codes in a byte. So they are not copied. Weights
    whose last block is shorter than the others, or whose zero points are not integers, become floats.
    """

    name = "products"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Replace all MatMulNBits in `model`, which is changed in place, and return it.

        Raises:
            UnsupportedError: the weights are of another form.
        """
        graph = model.graph
        tensors = {each.name: each for each in graph.initializer}
        tensors |= {node.output[0]: tensor for node in graph.node if (tensor := constant_tensor(node)) and node.output}
        build = Builder(Names(graph).prefix("products"))
        nodes: list[NodeProto] = []
        for node in graph.node:
            if node.op_type != "MatMulNBits" or node.domain != DOMAIN:
                nodes.append(node)
                continue
            graph.initializer.extend(_replace(node, tensors, build))
            nodes += build.nodes
            build.nodes = []
        copies = [NodeProto.FromString(each.SerializeToString()) for each in nodes]
        del graph.node[:]
        graph.node.extend(copies)
        return model


def _replace(node: NodeProto, tensors: dict[str, TensorProto], build: Builder) -> list[TensorProto]:
    """Build the nodes for a MatMulNBits; returns their constants."""
    label, given = f"MatMulNBits '{node.name or node.output[0]}'", dict(enumerate(node.input))
    attributes = attributes_of(node)
    bits, width, rows, block = (int(attributes.get(name, 4)) for name in ("bits", "K", "N", "block_size"))
    codes, scales, zeros = (tensors.get(given.get(index, "")) for index in (1, 2, 3))
    if given.get(4):
        raise UnsupportedError(f"{label} has the order of its groups (g_idx); quantize the model without reordering")
    if bits not in _CODES:
        raise UnsupportedError(f"{label} has weights of {bits} bits; known are 4 and 8")
    if codes is None or scales is None or scales.data_type not in _FLOATS or (zeros is None and given.get(3)):
        raise UnsupportedError(f"{label} has weights that are computed while the model runs; expected are constants")
    if width % block or (zeros is not None and zeros.data_type != TensorProto.UINT8):
        # These weights become floats: DequantizeLinear supports neither a shorter last block nor zero points that are
        # not integers.
        floats: list[TensorProto] = []
        build.nodes += replaced(node, tensors.get, floats.append, build.name()) or []
        return floats
    kind, shape = _CODES[bits], (rows, width // block)
    constants = [
        _as(codes, build.name(), kind, (rows, width)),
        _as(scales, build.name(), scales.data_type, shape),
        _zero_points(zeros, build.name(), bits, shape),
    ]
    whole = build.op("DequantizeLinear", *(each.name for each in constants), axis=1, block_size=block)
    product = build.name() if given.get(5) else node.output[0]
    build.put("MatMul", [node.input[0], build.op("Transpose", whole, perm=[1, 0])], [product])
    if given.get(5):
        build.put("Add", [product, given[5]], [node.output[0]])
    return constants


def _as(tensor: TensorProto, name: str, elem_type: int, shape: tuple[int, ...]) -> TensorProto:
    """Return a tensor with the same bytes, but another name, type and shape."""
    other = TensorProto()
    other.CopyFrom(tensor)
    other.name, other.data_type = name, elem_type
    del other.dims[:]
    other.dims.extend(shape)
    return other


def _zero_points(zeros: TensorProto | None, name: str, bits: int, shape: tuple[int, int]) -> TensorProto:
    """Make the constant of the zero points, UINT4 or UINT8 `shape` = [out, blocks]. If the node has none, the middle of
    the range of `bits` bits represents 0.
    """
    if zeros is None:
        codes: NDArray[Any] = np.full(shape, 1 << (bits - 1), np.uint8)
    elif bits == 8:
        return _as(zeros, name, TensorProto.UINT8, shape)
    else:
        packed = array_of(zeros).reshape(shape[0], -1)
        codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(shape[0], -1)[:, : shape[1]]
    if bits == 4:
        flat = codes.reshape(-1)
        flat = np.append(flat, np.zeros(len(flat) % 2, np.uint8))
        codes = flat[::2] | flat[1::2] << 4
    return TensorProto(name=name, data_type=_CODES[bits], dims=shape, raw_data=codes.astype(np.uint8).tobytes())
