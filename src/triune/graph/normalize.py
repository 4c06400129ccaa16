"""Rewrite any model in core operators (`core_ops`), by passes that run in a fixed order."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from onnx import GraphProto, ModelProto

from triune.core.errors import UnsupportedError
from triune.graph.check import Check
from triune.graph.core_ops import CORE_OPS
from triune.graph.declared import free_negative_sizes, give_output_shapes, infer_anew, take_output_shapes
from triune.graph.decompose import Decompose
from triune.graph.decompose.classical.tables import Tabulate
from triune.graph.defaults import free_initializers
from triune.graph.load import require_valid
from triune.graph.passes.adopt import Adopt
from triune.graph.passes.branches import Branches
from triune.graph.passes.consistent import Consistent
from triune.graph.passes.fold import Fold
from triune.graph.passes.fold_large import FoldLarge
from triune.graph.passes.infer import Infer
from triune.graph.passes.inline import Inline
from triune.graph.passes.means import Means
from triune.graph.passes.one_number import OneNumber, give_scalars
from triune.graph.passes.pack import Pack
from triune.graph.passes.run import GraphPass, run_passes
from triune.graph.passes.same_sizes import SameSizes
from triune.graph.passes.sequences import Sequences
from triune.graph.passes.tidy import Tidy
from triune.graph.passes.unroll import Unroll
from triune.graph.passes.upgrade import Upgrade
from triune.graph.passes.wide_guards import WideGuards
from triune.graph.passes.wide_squares import WideSquares
from triune.graph.shadows import rename_shadows
from triune.graph.sparse import make_dense
from triune.graph.values import subgraphs_of
from triune.graph.weight_files import WeightFile
from triune.graph.weights import Large, NoneLarge

MAX_ROUNDS = 8
"""The largest number of rounds of passes. What one round inlines or folds may allow the next one to fold more."""


def _round(keep: Collection[str], large: Large, fold: Fold) -> Sequence[GraphPass]:
    """The passes, in order, that `normalize` repeats until they change nothing."""
    return (
        # Infer runs before Decompose, which needs types and ranks.
        Infer(),
        Consistent(in_bodies=False),
        # Inline runs before Decompose, which also replaces nodes in the bodies of functions.
        Inline(keep),
        Sequences(),
        Decompose(keep),
        # Pack runs before Fold, which would dequantize weights by computing their Cast, Sub and Mul.
        Pack(large),
        # Infer the types of the new values of Decompose and Pack.
        Infer(),
        SameSizes(large),
        fold,
        # Branches runs after Fold, which may have made the condition of an If constant.
        Branches(),
        # Unroll runs after Fold, which may have made the number of iterations constant.
        Unroll(),
        OneNumber(),
        Means(),
        # Tidy removes values that no node reads any more.
        Tidy(),
    )


def normalize(
    model: ModelProto,
    *,
    keep: Collection[str] = (),
    check: Mapping[str, NDArray[Any]] | None = None,
    file: WeightFile | None = None,
    widens: bool = False,
) -> ModelProto:
    """Rewrite a model in core operators, so that it computes the same.

    Args:
        model: not changed. If it has external data, `load` must have set their locations.
        keep: operators ("Attention") that are kept although they have a function body or a decomposition.
        check: inputs on which ONNX's reference evaluator computes the model before and after every pass, to compare the
            outputs. It is slow: meant for tests and for debugging.
        file: the scratch file for new large weights; without it they are stored in the model.
        widens: whether to compute sums of squares of fp16, and normalizations whose guard is 0 in fp16, in fp32
            (`WideSquares`, `WideGuards`).

    Returns:
        a model of operator set `core_ops.OPSET` with the same inputs and outputs. Its constants are initializers, its
        values have types and, as far as they can be inferred, shapes, and its nodes have names. Nodes that cannot be
        rewritten in core ops stay; `foreign_ops` lists them.

    Raises:
        InvalidArgumentError: the model is not valid ONNX, or is of a newer operator set than is known.
        UnsupportedError: its operator set cannot be upgraded.
        InternalError: a pass changed what the model computes (only with `check`).
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    # Raise an IR version that requires initializers to be inputs: ONNX Runtime saves models under such a version
    # although their initializers are no inputs.
    free_initializers(copy)
    large = Large(file) if check is None else NoneLarge()
    make_dense(copy.graph)
    rename_shadows(copy.graph)
    if check is None:
        # Tabulate runs first, since other passes copy attributes number by number. It does not run with `check`: ONNX's
        # reference evaluator lacks the operators that it writes.
        Tabulate()(copy)
    large.take(copy)
    free_negative_sizes(copy.graph)
    copy = Adopt()(copy)
    require_valid(copy)
    give_scalars(copy.graph)
    declared = take_output_shapes(copy)
    watch = None if check is None else Check(copy, check)
    copy = run_passes(infer_anew(copy), [Upgrade()], watch)
    if widens:
        copy = run_passes(copy, [Infer(), Inline(keep, own_only=True), WideSquares()], watch)
    # All rounds of passes share one `Fold`, since it limits the size of all its results together.
    fold = Fold()
    for _ in range(MAX_ROUNDS):
        before = copy.SerializeToString(deterministic=True)
        copy = run_passes(copy, _round(keep, large, fold), watch)
        # Take the large constants out of the model again, since passes may have moved some from nodes and functions to
        # initializers.
        large.take(copy)
        if copy.SerializeToString(deterministic=True) == before:
            break
    copy = run_passes(copy, [Infer(), Consistent(in_bodies=True)], watch)
    if widens:
        copy = run_passes(copy, [WideGuards(), Infer()], watch)
    _name_nodes(copy.graph)
    give_output_shapes(copy, declared)
    large.give_back(copy)
    return run_passes(copy, [FoldLarge(large)], watch)


def _name_nodes(graph: GraphProto) -> None:
    """Name each unnamed node after its first output, since messages name nodes and passes rename outputs."""
    for node in graph.node:
        node.name = node.name or next(filter(None, node.output), "")
        for inner in subgraphs_of(node):
            _name_nodes(inner)


def foreign_ops(model: ModelProto, keep: Collection[str] = ()) -> list[str]:
    """List the nodes whose operators are not core operators, each as `domain:Op 'name'`, in order."""
    found: list[str] = []

    def look(graph: GraphProto) -> None:
        for node in graph.node:
            is_standard = node.domain in ("", "ai.onnx")
            if not is_standard or (node.op_type not in CORE_OPS and node.op_type not in keep):
                kind = node.op_type if is_standard else f"{node.domain}:{node.op_type}"
                found.append(f"{kind} '{node.name or node.output[0]}'")
            for subgraph in subgraphs_of(node):
                look(subgraph)

    look(model.graph)
    return found


def require_core_ops(model: ModelProto, keep: Collection[str] = ()) -> None:
    """Raises UnsupportedError, with the names of the nodes, if some nodes are not of core operators."""
    if found := foreign_ops(model, keep):
        raise UnsupportedError(
            f"{len(found)} nodes cannot be brought to core ops: {', '.join(found)}; replace them, or fix the shapes "
            "that they depend on"
        )
