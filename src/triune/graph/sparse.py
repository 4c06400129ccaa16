"""Convert sparse constants to dense ones, since no operator of ONNX reads sparse tensors."""

import math

import numpy as np
import onnx.checker
from onnx import GraphProto, SparseTensorProto, TensorProto, helper, numpy_helper

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.values import subgraphs_of

_MOST_BYTES = 1 << 31
"""The largest size of a dense tensor in bytes: a sparse tensor of a few numbers may have any shape."""


def make_dense(graph: GraphProto) -> None:
    """Replace sparse initializers and Constant nodes with sparse tensors by dense ones, in subgraphs too.

    Raises:
        InvalidArgumentError: a sparse tensor is not valid ONNX.
        UnsupportedError: a dense tensor would take more than 2 GiB.
    """
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse, sparse.values.name))
    del graph.sparse_initializer[:]
    for node in graph.node:
        for inner in subgraphs_of(node):
            make_dense(inner)
        for position, attribute in enumerate(node.attribute):
            if node.op_type == "Constant" and attribute.name == "sparse_value":
                dense = _dense(attribute.sparse_tensor, node.output[0])
                node.attribute[position].CopyFrom(helper.make_attribute("value", dense))


def _dense(sparse: SparseTensorProto, name: str) -> TensorProto:
    try:
        onnx.checker.check_sparse_tensor(sparse)
    except onnx.checker.ValidationError as error:
        raise InvalidArgumentError(f"the sparse constant '{name}' is not valid ONNX: {error}") from error
    values, positions = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dims = tuple(sparse.dims)
    if math.prod(dims) * values.dtype.itemsize > _MOST_BYTES:
        raise UnsupportedError(f"the sparse constant '{name}' of shape {list(dims)} takes more than 2 GiB when dense")
    array = np.zeros(dims, values.dtype)
    # There is either one index into the flattened tensor for each value, or one for each axis.
    flat = positions if positions.ndim == 1 else np.ravel_multi_index(tuple(positions.T), dims)
    array.reshape(-1)[flat] = values
    return numpy_helper.from_array(array, name)
