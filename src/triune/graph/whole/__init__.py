"""What a runtime computes faster when it knows it whole, recovered from the forms in which exporters write it.

Each becomes a call of a function of the model (domain `outline.DOMAIN`), whose body computes the same: the composite
operations of Apple's Core AI, `rms_norm`, `rope`, `scaled_dot_product_attention` and `gather_mm`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from triune.graph.ane.index import Index
from triune.graph.check import compare, evaluate
from triune.graph.passes.infer import Infer
from triune.graph.passes.tidy import Tidy
from triune.graph.weight_files import WeightFile
from triune.graph.weights import Large
from triune.graph.whole.attention import find_attentions
from triune.graph.whole.gather_matmul import find_gather_matmuls
from triune.graph.whole.outline import DOMAIN, Outline, call
from triune.graph.whole.rms_norm import find_rms_norms
from triune.graph.whole.rope import find_ropes

__all__ = ["DOMAIN", "keep_whole"]

_FINDERS: tuple[Callable[[Index], Iterator[Outline]], ...] = (
    find_rms_norms,
    find_ropes,
    find_attentions,
    find_gather_matmuls,
)


def keep_whole(
    model: ModelProto, *, check: Mapping[str, NDArray[Any]] | None = None, file: WeightFile | None = None
) -> ModelProto:
    """Given core ops. Result: calls of functions for what can be kept whole; see the module.

    Args:
        model: normalized; changed. Graphs within its nodes stay as they are.
        check: inputs on which the model is computed before and after, by ONNX's reference evaluator.
        file: takes large weights that are made; without it they are in the model.

    Raises:
        InternalError: the model computes something else (only with `check`).
    """
    expected = None if check is None else evaluate(model, check)
    for find in _FINDERS:
        index = Index(model.graph, "whole")
        nodes: list[NodeProto] = []
        outlines = {outline.end.output[0]: (outline, index.take()) for outline in find(index)}
        for node in model.graph.node:
            found = outlines.get(node.output[0])
            if found is None:
                nodes.append(node)
            else:
                outline, before = found
                nodes += [*before, call(model, outline)]
        index.replace(nodes)
        large = Large(file)
        large.take(model)
        model = Infer()(Tidy()(model))
        large.give_back(model)
    if check is not None and expected is not None:
        compare("whole", expected, model, check)
    return model
