"""Convert `triune::PagedAttention` to OpenVINO's own operator, and prepare models for caches that the caller owns.

The operator (openvino 2026.4.1) is marked experimental: the package is pinned, and a contract suite compares it with
numpy's answers.
"""

from typing import Any

import numpy as np
from onnx import GraphProto

from triune.graph.paged_attention import BIAS_INPUT, DOMAIN, OP_TYPE, cache_heads
from triune.graph.values import attributes_of
from triune.runtimes.openvino.library import library, onnx_frontend, operators, opset

LONGEST = "max_context_len"
"""An input that is added to models: INT32 [], the length of the longest sequence, including its new tokens."""

_LONGEST_INDEX = 12


def extension() -> Any:
    """The extension with which OpenVINO's ONNX front end converts the operator."""
    return onnx_frontend.ConversionExtension(OP_TYPE, DOMAIN, _convert)


def is_convertible(graph: GraphProto) -> bool:
    """Whether OpenVINO's operator can compute all attention of a graph: it supports neither a soft cap of scores nor a
    bias of distances.
    """
    nodes = [node for node in graph.node if node.domain == DOMAIN and node.op_type == OP_TYPE]
    return not any(
        attributes_of(node).get("softcap", 0.0) or (len(node.input) > BIAS_INPUT and node.input[BIAS_INPUT])
        for node in nodes
    )


def make_paged(model: Any, graph: GraphProto) -> None:
    """Change a model so that its caches get the type and shape that the CPU plugin chooses, and are written in place.

    Args:
        model: the OpenVINO model of `graph`; changed. Loses the outputs that are caches, and gains the input `LONGEST`:
            INT32 [], the length of the longest sequence.
        graph: the ONNX graph that it was read from.
    """
    for name, (heads, _) in cache_heads(graph).items():
        cache = model.input(name).get_node()
        cache.set_element_type(library.Type.dynamic)
        cache.set_partial_shape(library.PartialShape([-1, heads, -1, -1]))
    longest = opset.parameter([], library.Type.i32, LONGEST)
    longest.output(0).set_names({LONGEST})
    for node in model.get_ops():
        if node.get_type_name() == "PagedAttentionExtension":
            node.input(_LONGEST_INDEX).replace_source_output(longest.output(0))
    model.add_parameters([longest])
    for result in model.get_results():
        if "logits" not in result.output(0).get_names() | result.input(0).get_source_output().get_names():
            model.remove_result(result)
    model.validate_nodes_and_infer_types()


def _convert(context: Any) -> list[Any]:
    """Convert a `triune::PagedAttention` node to OpenVINO's operator, which has 28 inputs. Empty inputs turn off
    features that Triune's operator does not have.
    """
    query, key, value, key_cache, value_cache, *indices = (context.get_input(index) for index in range(9))
    num_kv_heads = int(context.get_attribute("num_kv_heads"))
    head_size = key_cache.get_partial_shape()[3].get_length()
    scale = context.get_attribute("scale", 0.0) or head_size**-0.5
    node = operators._PagedAttentionExtension(
        [
            *(query, key, value, key_cache, value_cache, *indices),
            _constant(scale, np.float32),
            _constant(context.get_attribute("sliding_window", 0), np.int32),
            # The input for ALiBi's slopes, and the one that `make_paged` replaces by LONGEST.
            *(_empty(np.float32), _constant(0, np.int32)),
            # Inputs for the aggregation of scores, the rotated blocks, their deltas and the rotation table, and for the
            # threshold of sparse attention.
            *(_empty(np.int32), _empty(np.int32), _empty(np.int32), _empty(np.float32), _empty(np.float32)),
            # Inputs for the block size and the stride of sparse attention, and for the sinks.
            *(_constant(64, np.int32), _constant(8, np.int32), _empty(np.float32)),
            # The input for the number of tokens from which on blocks are evicted, and four inputs for the eviction and
            # for token types.
            *(_constant(0, np.int32), _empty(np.int32), _empty(np.int32), _empty(np.int32), _empty(np.int32)),
            # The two inputs of a bias between queries, which Triune's operator does not have.
            *(_empty(np.uint8), _empty(np.int32)),
        ]
    )
    for name, number in (("k_head_size", head_size), ("v_head_size", head_size)):
        node.get_rt_info()[name] = number
    for name in ("num_k_heads", "num_v_heads"):
        node.get_rt_info()[name] = num_kv_heads
    # Unlike Triune's operator, OpenVINO's does not return the new caches: `make_paged` removes these outputs from the
    # model.
    return node.outputs()


def _constant(value: float, dtype: type[np.generic]) -> Any:
    return opset.constant(np.array(value, dtype)).output(0)


def _empty(dtype: type[np.generic]) -> Any:
    return opset.constant(np.zeros(0, dtype)).output(0)
