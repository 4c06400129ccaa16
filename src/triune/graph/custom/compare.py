"""Compare the body of a custom operator with its numpy function, on the values that a model gives it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from triune.core.errors import InvalidArgumentError
from triune.graph.custom.collection import CustomOps
from triune.graph.custom.resolve import with_bodies
from triune.graph.custom.stages import CustomNode, RunPiece, Stages
from triune.graph.index import label
from triune.graph.session import GraphSession
from triune.graph.split import Piece

Array = NDArray[Any]

TOLERANCE: Final = 1e-3
"""The tolerance, relative to the largest value: the error to which fp32 rounding may add up in long sums."""


class BodyDiffersError(InvalidArgumentError):
    """The body of a custom operator computes other outputs than its numpy function."""


def compare_bodies(model: ModelProto, ops: CustomOps, inputs: Mapping[str, Array]) -> Sequence[str]:
    """Run a model with its custom operators in numpy, and compare each with its body on the same values.

    Args:
        model: a result of `graph.load.load`, without the bodies; not changed.
        ops: the custom operators.
        inputs: the model's inputs by name.

    Returns:
        a line for each node that was compared. Nodes in branches, loops and functions are not.

    Raises:
        BodyDiffersError: a body differs from its numpy function. The message names the node, the output and by how
            much.
        InvalidArgumentError: the model does not take these inputs, or a node does not fit its numpy function.
        NumpyFunctionError: a numpy function raised an exception.
        UnsupportedError: ONNX Runtime cannot run the model's other operators.
    """
    at = [
        position
        for position, node in enumerate(model.graph.node)
        if (op := ops.ops.get((node.domain, node.op_type))) is not None and op.compute is not None
    ]
    if not at:
        return ()
    found: list[str] = []

    def watch(custom: CustomNode, values: Mapping[str, Array], results: Mapping[str, Array]) -> None:
        if custom.op.body is not None:
            found.append(_compare(custom, custom.inputs(values), results, ops))

    def compile_piece(piece: Piece) -> RunPiece:
        whole = with_bodies(piece.model, ops) or piece.model
        session = GraphSession(whole, "the model between its custom operators", optimizes=False)
        return lambda given: session.run(given, {})[0]

    stages = Stages(model, ops, at, compile_piece)
    # Values that no output depends on are not computed, and therefore not compared.
    stages.run(inputs, [value.name for value in model.graph.output], watch)
    return found


def _compare(custom: CustomNode, inputs: Sequence[Array | None], results: Mapping[str, Array], ops: CustomOps) -> str:
    """Compare the results of a node's numpy function with those of its body. Returns a line with the difference."""
    node = custom.node
    try:
        answers = _by_body(node, inputs, results, ops)
    except Exception as error:
        raise BodyDiffersError(
            f"the body of custom operator '{custom.op}' cannot compute {label(node)} on the inputs "
            f"{_shapes(inputs)}, which its numpy function computes: {error}"
        ) from error
    largest = 0.0
    for name, expected in results.items():
        actual = answers[name]
        where = f"output '{name}' of {label(node)}: custom operator '{custom.op}', on inputs {_shapes(inputs)},"
        if actual.shape != expected.shape:
            raise BodyDiffersError(
                f"{where} has the shape {list(actual.shape)} by its body and {list(expected.shape)} by its numpy "
                "function; correct one of them"
            )
        error = _error(actual, expected)
        if error > TOLERANCE:
            raise BodyDiffersError(
                f"{where} differs by {error:.3g} of the largest value between its body and its numpy function; "
                f"{TOLERANCE:g} is allowed: correct one of them"
            )
        largest = max(largest, error)
    return f"custom operator '{custom.op}' at {label(node)}: body and numpy function differ by {largest:.2g}"


def _shapes(inputs: Sequence[Array | None]) -> str:
    return ", ".join("none" if each is None else f"{each.dtype}{list(each.shape)}" for each in inputs)


def _error(actual: Array, expected: Array) -> float:
    """The largest difference, relative to the largest finite value; infinite if NaN or infinities are at different
    places.
    """
    if expected.dtype.kind in "OSU" or actual.size == 0:
        return 0.0 if np.array_equal(actual, expected) else float("inf")
    one, other = actual.astype(np.float64), expected.astype(np.float64)
    is_finite = np.isfinite(other)
    if not np.array_equal(is_finite, np.isfinite(one)) or not np.array_equal(
        one[~is_finite], other[~is_finite], equal_nan=True
    ):
        return float("inf")
    difference = np.abs(one[is_finite] - other[is_finite]).max(initial=0.0)
    largest = np.abs(other[is_finite]).max(initial=0.0)
    return float(difference / largest) if largest else float(difference)


def _by_body(
    node: NodeProto, inputs: Sequence[Array | None], results: Mapping[str, Array], ops: CustomOps
) -> Mapping[str, Array]:
    """The outputs of a node, by its body in ONNX Runtime."""
    given = {name: array for name, array in zip(node.input, inputs, strict=True) if array is not None}
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in given.items()
    ]
    outputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), None)
        for name, array in results.items()
    ]
    op = ops.ops[node.domain, node.op_type]
    assert op.body is not None
    graph = helper.make_graph([node], "custom", values, outputs)
    imports = [each for each in op.body.opset_import if each.domain != op.domain]
    alone = helper.make_model(graph, opset_imports=[*imports, helper.make_opsetid(op.domain, 1)])
    whole = with_bodies(alone, ops)
    assert whole is not None
    return GraphSession(whole, f"the body of '{op}'", optimizes=False).run(given, {})[0]
