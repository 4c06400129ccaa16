"""T5 as two graphs, an encoder and a decoder. Their only information about positions is a bias of the attention scores.

Raffel et al., 2019 (arXiv:1910.10683); gated MLPs of version 1.1: Shazeer, 2020 (arXiv:2002.05202).
"""

import math

import numpy as np
from numpy.typing import NDArray

from triune.engine.models.builder import ModelBuilder, Weights
from triune.engine.models.encoder_forms import EncoderFormName, encoder_form_of
from triune.engine.models.forms import FormName, form_of
from triune.engine.models.source import source_of
from triune.engine.weights.config import T5Config
from triune.graph.held import HeldModel


def write_t5_encoder(
    config: T5Config, weights: Weights, form_name: EncoderFormName, *, gives_memory: bool = False
) -> HeldModel:
    """Write T5's encoder in the form `form_name`. `encoder_forms` describes the inputs. Output: `last_hidden_state`
    FP32 [..., width]. With `gives_memory` the outputs are instead what the paged decoder reads: `cross_key.N` and
    `cross_value.N` FP32 [..., heads * size] for each layer N of the decoder.
    """
    graph = ModelBuilder("t5_encoder", weights)
    form = encoder_form_of(form_name, graph)
    bias = _bias_between(graph, config, form.steps())
    x = graph.embedding(form.ids, "shared")
    for index in range(config.num_layers):
        name = f"encoder.block.{index}.layer"
        query, key, value = _heads(graph, f"{name}.0.SelfAttention", _norm(graph, config, f"{name}.0", x))
        attended = form.attend(query, key, value, num_heads=config.num_heads, scale=1.0, bias=bias)
        x = graph.op("Add", x, graph.linear(attended, f"{name}.0.SelfAttention.o"))
        x = _mlp(graph, config, f"{name}.1", x)
    x = graph.rms_norm(x, "encoder.final_layer_norm", config.layer_norm_epsilon)
    if not gives_memory:
        graph.result(x, "last_hidden_state", *form.sizes, config.d_model)
        return graph.build()
    for index in range(config.num_decoder_layers):
        cross = f"decoder.block.{index}.layer.1.EncDecAttention"
        for name, memory in zip(("key", "value"), graph.linears(x, [f"{cross}.k", f"{cross}.v"]), strict=True):
            graph.result(memory, f"cross_{name}.{index}", *form.sizes, config.num_heads * config.d_kv)
    return graph.build()


def write_t5_decoder(config: T5Config, weights: Weights, form_name: FormName, num_positions: int) -> HeldModel:
    """Write T5's decoder in the form `form_name`, for contexts of up to `num_positions` tokens. `forms` and `source`
    describe its inputs and outputs.
    """
    graph = ModelBuilder("t5_decoder", weights)
    form = form_of(form_name, graph, num_positions)
    source = source_of(form_name, graph, config.d_model, is_masked=True, num_attended=config.num_heads * config.d_kv)
    bias = _bias_by_distance(graph, config)
    x = graph.embedding(form.ids, "shared")
    heads, size = config.num_heads, config.d_kv
    for index in range(config.num_decoder_layers):
        name = f"decoder.block.{index}.layer"
        query, key, value = _heads(graph, f"{name}.0.SelfAttention", _norm(graph, config, f"{name}.0", x))
        attended = form.attend(
            query, key, value, num_heads=heads, num_kv_heads=heads, head_size=size, scale=1.0, distance_bias=bias
        )
        x = graph.op("Add", x, graph.linear(attended, f"{name}.0.SelfAttention.o"))
        cross = f"{name}.1.EncDecAttention"
        query = graph.linear(_norm(graph, config, f"{name}.1", x), f"{cross}.q")
        key = source.read(f"cross_key.{index}", lambda states, cross=cross: graph.linear(states, f"{cross}.k"))
        value = source.read(f"cross_value.{index}", lambda states, cross=cross: graph.linear(states, f"{cross}.v"))
        attended = source.attend(query, key, value, num_heads=heads, scale=1.0)
        x = graph.op("Add", x, graph.linear(attended, f"{cross}.o"))
        x = _mlp(graph, config, f"{name}.2", x)
    x = graph.rms_norm(form.wanted(x), "decoder.final_layer_norm", config.layer_norm_epsilon)
    if config.scale_decoder_outputs:
        x = graph.op("Mul", x, graph.scalar(config.d_model**-0.5))
    form.put_logits(graph.linear(x, "shared" if config.tie_word_embeddings else "lm_head"), config.vocab_size)
    return graph.build()


def _heads(graph: ModelBuilder, name: str, x: str) -> tuple[str, str, str]:
    query, key, value = graph.linears(x, [f"{name}.{kind}" for kind in ("q", "k", "v")])
    return query, key, value


def _mlp(graph: ModelBuilder, config: T5Config, name: str, x: str) -> str:
    dense, normed = f"{name}.DenseReluDense", _norm(graph, config, name, x)
    if config.is_gated_act:
        gate = graph.activation(graph.linear(normed, f"{dense}.wi_0"), config.activation)
        wide = graph.op("Mul", gate, graph.linear(normed, f"{dense}.wi_1"))
    else:
        wide = graph.activation(graph.linear(normed, f"{dense}.wi"), config.activation)
    return graph.op("Add", x, graph.linear(wide, f"{dense}.wo"))


def _norm(graph: ModelBuilder, config: T5Config, name: str, x: str) -> str:
    return graph.rms_norm(x, f"{name}.layer_norm", config.layer_norm_epsilon)


def _bias_by_distance(graph: ModelBuilder, config: T5Config) -> str:
    """The position bias that all layers of the decoder add to their scores, FP32 [heads, distances] (see
    `Form.attend`).
    """
    distances = np.arange(config.relative_attention_max_distance + 1)
    return graph.op("Transpose", _rows_of_bias(graph, config, "decoder", -distances), perm=[1, 0])


def _bias_between(graph: ModelBuilder, config: T5Config, steps: str) -> str:
    """The position bias that all layers of the encoder add to their scores, FP32 [1, heads, queries, keys]."""
    most = config.relative_attention_max_distance
    # Row d has the bias of a key that is d - most tokens after the query. All distances of at least `most` share a
    # bucket.
    by_distance = _rows_of_bias(graph, config, "encoder", np.arange(-most, most + 1))
    distances = graph.op("Sub", steps, graph.op("Unsqueeze", steps, graph.ints(1)))
    limited = graph.op("Clip", distances, graph.number(-most), graph.number(most))
    bias = graph.op("Gather", by_distance, graph.op("Add", limited, graph.number(most)))
    return graph.op("Unsqueeze", graph.op("Transpose", bias, perm=[2, 0, 1]), graph.ints(0))


def _rows_of_bias(graph: ModelBuilder, config: T5Config, stack: str, distances: NDArray[np.int64]) -> str:
    """The bias for each distance from a query to a key, FP32 [distances, heads]; `stack` is "encoder" or "decoder"."""
    buckets = distance_buckets(
        distances,
        config.relative_attention_num_buckets,
        config.relative_attention_max_distance,
        is_causal=stack == "decoder",
    )
    return graph.rows(f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", buckets)


def distance_buckets(
    distances: NDArray[np.int64], num_buckets: int, max_distance: int, *, is_causal: bool
) -> NDArray[np.int64]:
    """Compute the bucket, INT64 [distances], of each distance from a query to a key, which is positive if the key is
    later (T5's relative position bias).

    Half of the buckets are for single distances, the others for ranges that grow up to `max_distance`.

    Args:
        distances: the key's position minus the query's.
        num_buckets: the number of all buckets.
        max_distance: all larger distances share the last bucket.
        is_causal: whether a query attends to earlier keys only. If not, the second half of all buckets is for later
            keys.
    """
    offset = np.zeros_like(distances)
    if is_causal:
        ago = np.maximum(-distances, 0)
    else:
        num_buckets //= 2
        offset, ago = np.where(distances > 0, num_buckets, 0), np.abs(distances)
    num_single = num_buckets // 2
    # Compute in fp32, as T5's code does, since at the borders of ranges rounding decides the bucket.
    share = np.log(np.maximum(ago, 1).astype(np.float32) / np.float32(num_single)) / np.float32(
        math.log(max_distance / num_single)
    )
    far = num_single + (share * np.float32(num_buckets - num_single)).astype(np.int64)
    return offset + np.where(ago < num_single, ago, np.minimum(far, num_buckets - 1))
