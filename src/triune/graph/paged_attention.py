"""`triune::PagedAttention`, Triune's only own operator: causal attention of the tokens of several sequences over paged
caches.

The caches of keys and values consist of blocks, as in Kwon et al., "Efficient Memory Management for Large Language
Model Serving with PagedAttention" (2023, arXiv:2309.06180).

| input | type and shape |
| --- | --- |
| query | T [tokens, num_heads * head_size]; the new tokens of all sequences, one sequence after another |
| key, value | T [tokens, num_kv_heads * head_size] |
| key_cache, value_cache | T [num_blocks, num_kv_heads, block_size, head_size] |
| past_lengths | int32 [sequences]: tokens that each sequence has in the caches already |
| subsequence_begins | int32 [sequences + 1]: sequence i's new tokens are begins[i] up to begins[i + 1] |
| block_indices | int32 [blocks of all sequences]: each sequence's blocks in the order of its tokens, concatenated |
| block_indices_begins | int32 [sequences + 1]: offsets into block_indices |
| distance_bias | optional, T [num_heads, distances]: added to the scores after scale and soft cap |

Column d of `distance_bias` is added to the score of a key that is d tokens before its query; keys further back have the
last column. That is T5's bias of relative positions (Raffel et al., 2019, arXiv:1910.10683).

Outputs: the result, T [tokens, num_heads * head_size], and both caches with the new tokens at the positions from the
sequence's past length on. A runtime may write into the caches that it was given and omit the two outputs.

Attributes: `num_heads`, `num_kv_heads` (a divisor of num_heads: query head h reads head h * num_kv_heads / num_heads),
`scale` (1 / sqrt(head_size) where it is left out), `sliding_window` (0 for none: a token sees itself and window - 1
tokens before it), `softcap` (0 for none: scores become softcap * tanh(scores / softcap)).
"""

import functools
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, TypeProto, defs
from onnx.reference.op_run import OpRun

DOMAIN = "triune"
VERSION = 1
OP_TYPE = "PagedAttention"

_INPUTS = ("query", "key", "value", "key_cache", "value_cache")
_INDEX_INPUTS = ("past_lengths", "subsequence_begins", "block_indices", "block_indices_begins")

BIAS_INPUT = 9
"""The position of `distance_bias` among the inputs."""

MEMORY_PREFIX = "cross_"
"""The beginning of the names of those inputs that are an encoder's memory (its keys and values for cross-attention)."""


class PagedAttention(OpRun):
    """The operator in numpy for ONNX's evaluator: `ReferenceEvaluator(model, new_ops=[PagedAttention])`."""

    op_domain = DOMAIN

    def _run(self, *inputs: NDArray[Any], **attributes: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        given = {name: value for name, value in attributes.items() if value is not None}
        return paged_attention(*inputs, **given)


def paged_attention(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    key_cache: NDArray[Any],
    value_cache: NDArray[Any],
    past_lengths: NDArray[np.int32],
    subsequence_begins: NDArray[np.int32],
    block_indices: NDArray[np.int32],
    block_indices_begins: NDArray[np.int32],
    distance_bias: NDArray[Any] | None = None,
    *,
    num_heads: int,
    num_kv_heads: int,
    scale: float = 0.0,
    sliding_window: int = 0,
    softcap: float = 0.0,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Compute the operator in numpy, token by token. The inputs are not changed.

    Returns:
        the result, and both caches with the new tokens.

    Raises:
        ValueError: a sequence has fewer blocks than its tokens take, or an index is out of range.
    """
    head_size = query.shape[1] // num_heads
    scale = scale or head_size**-0.5
    block_size = key_cache.shape[2]
    key_cache, value_cache, output = key_cache.copy(), value_cache.copy(), np.empty_like(query)
    for sequence, past in enumerate(past_lengths.tolist()):
        begin, end = subsequence_begins[sequence : sequence + 2].tolist()
        blocks = block_indices[slice(*block_indices_begins[sequence : sequence + 2].tolist())]
        length = past + end - begin
        if length > len(blocks) * block_size:
            raise ValueError(
                f"sequence {sequence} has {length} tokens, and its {len(blocks)} blocks of {block_size} hold "
                f"{len(blocks) * block_size}"
            )
        if len(blocks) and not 0 <= blocks.min() <= blocks.max() < len(key_cache):
            raise ValueError(f"sequence {sequence} has blocks {blocks.tolist()}; the cache has {len(key_cache)}")
        # The block of each position, and its offset in the block.
        positions: NDArray[np.int64] = np.arange(length, dtype=np.int64)
        block, offset = blocks[positions // block_size], positions % block_size
        for cache, new in ((key_cache, key), (value_cache, value)):
            cache[block[past:], :, offset[past:]] = new[begin:end].reshape(-1, num_kv_heads, head_size)
        keys, values = (cache[block, :, offset].astype(np.float32) for cache in (key_cache, value_cache))
        keys, values = (np.repeat(each, num_heads // num_kv_heads, axis=1) for each in (keys, values))
        for token in range(begin, end):
            position = past + token - begin
            first = max(0, position + 1 - sliding_window) if sliding_window else 0
            seen = slice(first, position + 1)
            scores = np.einsum("hd,khd->hk", query[token].reshape(num_heads, -1).astype(np.float32), keys[seen]) * scale
            if softcap:
                scores = softcap * np.tanh(scores / softcap)
            if distance_bias is not None:
                distances: NDArray[np.int64] = position - np.arange(first, position + 1, dtype=np.int64)
                scores = scores + distance_bias[:, np.minimum(distances, distance_bias.shape[1] - 1)]
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            output[token] = np.einsum("hk,khd->hd", weights, values[seen]).reshape(-1)
    return output, key_cache, value_cache


def cache_heads(graph: GraphProto) -> dict[str, tuple[int, int]]:
    """For each cache of a graph, by name, the number of heads and the size of a head.

    The caches are in the order of the nodes; the cache of a node's keys comes before that of its values.
    """
    inputs = {value.name: value.type.tensor_type.shape.dim for value in graph.input}
    nodes = [node for node in graph.node if node.op_type == OP_TYPE and node.domain == DOMAIN]
    return {name: (inputs[name][1].dim_value, inputs[name][3].dim_value) for node in nodes for name in node.input[3:5]}


def memory_widths(graph: GraphProto) -> dict[str, int]:
    """Maps the inputs of a decoder in the paged form that are an encoder's output (`DecoderStep.memory`) to their
    widths. Empty if the decoder has no encoder.
    """
    return {
        value.name: value.type.tensor_type.shape.dim[-1].dim_value
        for value in graph.input
        if value.name.startswith(MEMORY_PREFIX)
    }


_registering = threading.Lock()


def register() -> None:
    """Register the operator with ONNX, so that its checker accepts it and its inference finds types and shapes.

    Models load in several threads, and ONNX refuses a second registration. A lock makes other threads wait for the
    first one.
    """
    with _registering:
        _register_once()


@functools.cache
def _register_once() -> None:
    tensor, index, attribute = defs.OpSchema.FormalParameter, "tensor(int32)", defs.OpSchema.Attribute
    kind = defs.OpSchema.AttrType
    schema = defs.OpSchema(
        OP_TYPE,
        DOMAIN,
        VERSION,
        doc=__doc__ or "",
        inputs=[
            *(tensor(name, "T") for name in _INPUTS),
            *(tensor(name, index) for name in _INDEX_INPUTS),
            tensor("distance_bias", "T", param_option=defs.OpSchema.FormalParameterOption.Optional),
        ],
        outputs=[tensor(name, "T") for name in ("output", "new_key_cache", "new_value_cache")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"], "floats")],
        attributes=[
            attribute("num_heads", kind.INT, "heads of queries", required=True),
            attribute("num_kv_heads", kind.INT, "heads of keys and values", required=True),
            attribute("scale", kind.FLOAT, "factor of the scores; 1 / sqrt(head_size) by default", required=False),
            attribute("sliding_window", kind.INT, "tokens that a token sees; 0 for all", required=False),
            attribute("softcap", kind.FLOAT, "limit of the scores; 0 for none", required=False),
        ],
    )
    schema.set_type_and_shape_inference_function(_infer)
    defs.register_schema(schema)


def _infer(context: Any) -> None:
    """Infer types and shapes: the result has those of the query, and each new cache has those of the old one."""
    for output, given in enumerate((0, 3, 4)[: context.get_num_outputs()]):
        found: TypeProto | None = context.get_input_type(given)
        if found is not None:
            context.set_output_type(output, found)
