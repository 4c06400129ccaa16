"""Constant folding: compute nodes whose inputs are constants."""

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import InferenceError

from triune.graph.all_tensors import tensors_of
from triune.graph.by_values import RANDOM
from triune.graph.core_ops import OPSET
from triune.graph.folding_limit import GROWS, folding_limit
from triune.graph.inference import infer_shapes
from triune.graph.passes.partly_known import PartlyKnown, partly_known
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, subgraphs_of
from triune.graph.weight_files import LARGE_BYTES

MAX_ELEMENTS = 1 << 20
"""Results of more elements are not folded: an Expand of a scalar could become a constant of a gigabyte."""

_MOST_SIZES = 64
"""A 1-D tensor with more elements is not treated as a shape."""

NOT_FOLDED = frozenset([*RANDOM, "Constant", "Dropout", "QuantizeLinear", "DequantizeLinear"])
_FIRST_AS_TODAY = 13
_OTHERWISE_BEFORE = frozenset(["Softmax", "LogSoftmax", "Hardmax", "Resize", "Upsample", "BatchNormalization"])
"""Operators whose meaning changed in operator set 13. Nodes of older sets with these operators are not folded, since
ONNX's reference evaluator knows only the new meaning.
"""

_NOT_COMPRESSED = (TensorProto.INT16, TensorProto.UINT16, TensorProto.INT32)
"""Types of quantized weights that no runtime keeps quantized; so their DequantizeLinear is folded."""


class Fold(GraphPass):
    """Given nodes whose inputs are constants, and shapes that are known. Result: constants in their place.

    Vectors computed from shapes are followed element by element: of the shape [?, 128, 768], [128, 768] is known.
    QuantizeLinear and DequantizeLinear are not folded, since they hold compressed weights. A DequantizeLinear of 16 or
    32 bits, such as the bias of a quantized layer, compresses little and is folded.

    All results together take at most the `folding_limit` of the first model that the pass gets. Nodes whose results
    would take more stay.
    """

    name = "fold"

    def __init__(
        self,
        opset: int = OPSET,
        *,
        grows: bool = True,
        most_elements: int = MAX_ELEMENTS,
        only: Collection[str] | None = None,
    ) -> None:
        """Args:
        opset: the version of ONNX's operator set that the model imports.
        grows: whether a result of LARGE_BYTES or more may take more bytes than its operands, as weights of 8 bits do
            that are cast to fp32.
        most_elements: the most elements of a node's results.
        only: the first outputs of the nodes that are folded; None for any node.
        """
        self._how = _How(opset, grows, most_elements, only)
        self._left: _Left | None = None

    def __call__(self, model: ModelProto) -> ModelProto:
        """Replace by constants, in place, the nodes of `model` whose results are known.

        Nodes that ONNX's reference evaluator cannot compute stay.
        """
        if self._left is None:
            self._left = _Left(folding_limit(tensors_of(model)))
        _fold_graph(model.graph, None, {}, self._how, self._left)
        return model


@dataclass(frozen=True, slots=True)
class _How:
    """How nodes are folded: by which version of the operator set, whether constants may grow, to how many elements, and
    which nodes (see `Fold`).
    """

    opset: int
    grows: bool
    most_elements: int
    only: Collection[str] | None


@dataclass(slots=True)
class _Left:
    """The number of bytes that the results of further nodes may take."""

    num_bytes: int

    def take(self, results: Sequence[NDArray[Any]]) -> bool:
        """Subtract the size of results from `num_bytes`; returns False, and subtracts nothing, if they are larger."""
        size = sum(array.nbytes for array in results)
        if size > self.num_bytes:
            return False
        self.num_bytes -= size
        return True


def _fold_graph(
    graph: GraphProto, outer: Values | None, outer_parts: Mapping[str, PartlyKnown], how: _How, left: _Left
) -> None:
    values = Values(graph, outer)
    parts: dict[str, PartlyKnown] = dict(outer_parts)
    nodes: list[NodeProto] = []
    known: dict[str, NDArray[Any]] = {}

    def constant(name: str) -> NDArray[Any] | None:
        return known[name] if name in known else _constant(values, name)

    for node in graph.node:
        for subgraph in subgraphs_of(node):
            _fold_graph(subgraph, values, parts, how, left)
        results = _evaluate(node, values, constant, parts, how)
        if results is None or not left.take(results):
            nodes.append(node)
            continue
        for name, array in zip(node.output, results, strict=True):
            if name:
                known[name] = array
                nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name)))
    del graph.node[:]
    graph.node.extend(nodes)


def _constant(values: Values, name: str) -> NDArray[Any] | None:
    """The value of a constant, or an empty array if the shape of the value `name` has a 0; else None."""
    shape, elem_type = values.static_shape(name), values.elem_type(name)
    if shape is not None and 0 in shape and elem_type not in (0, TensorProto.STRING):
        return np.empty(shape, helper.tensor_dtype_to_np_dtype(elem_type))
    return values.constant(name)


def _evaluate(
    node: NodeProto, values: Values, constant: Any, parts: dict[str, PartlyKnown], how: _How
) -> Sequence[NDArray[Any]] | None:
    is_left = node.op_type in NOT_FOLDED and not _is_unpacked_from_many_bits(node, values)
    is_left = is_left or (how.opset < _FIRST_AS_TODAY and node.op_type in _OTHERWISE_BEFORE)
    is_left = is_left or (how.only is not None and (not node.output or node.output[0] not in how.only))
    if node.domain not in ("", "ai.onnx") or is_left or any(True for _ in subgraphs_of(node)):
        return None
    part = partly_known(node, values, constant, parts)
    if part is not None:
        parts[node.output[0]] = part
        if part.is_known:
            return [part.array()]
    feeds: dict[str, NDArray[Any]] = {}
    # Look at large constants last: they may be read from files, which is not needed if another input is not constant.
    for name in sorted(filter(None, node.input), key=lambda name: values.tensor(name) is not None):
        array = constant(name)
        if array is None:
            return None
        feeds[name] = array
    if not feeds:
        return None
    if any(array.dtype == object for array in feeds.values()):
        return None
    shape = values.static_shape(node.output[0]) if node.output else None
    shape = _result_shape(node, feeds, how.opset) if shape is None else shape
    if (shape is None and node.op_type in GROWS) or math.prod(shape or ()) > how.most_elements:
        return None
    results = _run(node, feeds, how)
    if results is not None and not how.grows:
        size = sum(array.nbytes for array in results)
        if size >= LARGE_BYTES and size > sum(array.nbytes for array in feeds.values()):
            return None
    types = [values.elem_type(name) for name in node.output]
    # The node stays if the evaluator returns another type than that of the node's output (fp32 for fp16).
    if results is None or any(
        elem_type and name and helper.np_dtype_to_tensor_dtype(array.dtype) != elem_type
        for name, elem_type, array in zip(node.output, types, results, strict=True)
    ):
        return None
    return results


def _is_unpacked_from_many_bits(node: NodeProto, values: Values) -> bool:
    return node.op_type == "DequantizeLinear" and values.elem_type(node.input[0]) in _NOT_COMPRESSED


def _result_shape(node: NodeProto, feeds: Mapping[str, NDArray[Any]], opset: int) -> tuple[int, ...] | None:
    """Infer the shape of a node's first result from the values of its inputs; None if it is not known.

    The caller checks it before evaluating the node, since a Range or an Expand may produce gigabytes.
    """
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in feeds.items()
        ],
        [helper.make_empty_tensor_value_info(node.output[0])],
        [numpy_helper.from_array(array, name) for name, array in feeds.items() if array.size <= _MOST_SIZES],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        return Values(infer_shapes(model).graph).static_shape(node.output[0])
    except (InferenceError, ValueError, RuntimeError):
        return None


def _run(node: NodeProto, feeds: Mapping[str, NDArray[Any]], how: _How) -> Sequence[NDArray[Any]] | None:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    names = [name for name in node.output if name]
    outputs = [helper.make_empty_tensor_value_info(name) for name in names]
    model = helper.make_model(
        helper.make_graph([node], "one", inputs, outputs), opset_imports=[helper.make_opsetid("", how.opset)]
    )
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            evaluator: Any = ReferenceEvaluator(model)
            results: list[Any] = evaluator.run(None, dict(feeds))
    except Exception:  # noqa: BLE001 - not an error of the model: what the evaluator cannot compute stays
        return None
    arrays = dict(zip(names, results, strict=True))
    if any(not isinstance(array, (np.ndarray, np.generic)) for array in arrays.values()):
        return None
    if sum(array.size for array in arrays.values()) > how.most_elements:
        return None
    return [np.asarray(arrays[name]) if name else np.empty(0) for name in node.output]
