"""Patterns that a runtime computes faster as one operation: each becomes a call of a function of the model.

The functions (domain `call.DOMAIN`) have bodies that compute the same as the nodes did. They are the composite
operations of Apple's Core AI: `rms_norm`, `rope`, `scaled_dot_product_attention` and `gather_mm`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from triune.graph.check import compare, evaluate
from triune.graph.fused.attention import fuse_attention
from triune.graph.fused.call import DOMAIN, FusedCall, add_call
from triune.graph.fused.gather_matmul import fuse_gather_matmul
from triune.graph.fused.rms_norm import fuse_rms_norm
from triune.graph.fused.rotary import fuse_rotary
from triune.graph.index import Index
from triune.graph.passes.infer import Infer
from triune.graph.passes.tidy import Tidy
from triune.graph.weight_files import WeightFile
from triune.graph.weights import Large

__all__ = ["DOMAIN", "fuse"]

_PATTERNS: tuple[Callable[[Index], Iterator[FusedCall]], ...] = (
    fuse_rms_norm,
    fuse_rotary,
    fuse_attention,
    fuse_gather_matmul,
)


def fuse(
    model: ModelProto, *, check: Mapping[str, NDArray[Any]] | None = None, file: WeightFile | None = None
) -> ModelProto:
    """Given core ops. Result: calls of functions for the patterns that can be fused; see the module.

    Args:
        model: normalized; changed. Graphs within its nodes stay as they are.
        check: inputs on which the model is computed before and after, by ONNX's reference evaluator.
        file: takes large weights that are made; without it they are in the model.

    Raises:
        InternalError: the model computes something else (only with `check`).
    """
    expected = None if check is None else evaluate(model, check)
    for pattern in _PATTERNS:
        index = Index(model.graph, "fused")
        nodes: list[NodeProto] = []
        calls = {found.output.output[0]: (found, index.take()) for found in pattern(index)}
        for node in model.graph.node:
            found = calls.get(node.output[0])
            if found is None:
                nodes.append(node)
            else:
                call, before = found
                nodes += [*before, add_call(model, call)]
        index.replace(nodes)
        large = Large(file)
        large.take(model)
        model = Infer()(Tidy()(model))
        large.give_back(model)
    if check is not None and expected is not None:
        compare("fused", expected, model, check)
    return model
