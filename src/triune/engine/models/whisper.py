"""Whisper as two graphs: an encoder of log-mel spectrograms, and a decoder of text.

Radford et al., 2022 (arXiv:2212.04356).
"""

from onnx import TensorProto

from triune.core.errors import InvalidArgumentError
from triune.engine.models.attention import attend, steps_of
from triune.engine.models.builder import ModelBuilder, Weights
from triune.engine.models.forms import Form, FormName, form_of
from triune.engine.models.source import Source, WatchedSource, source_of
from triune.engine.weights.config import WhisperConfig
from triune.graph.held import HeldModel


def write_whisper_encoder(config: WhisperConfig, weights: Weights, *, gives_memory: bool) -> HeldModel:
    """Write Whisper's encoder. Input: `input_features` FP32 [batch, bands, 2 * frames], for at most
    `max_source_positions` frames. Output: `last_hidden_state` FP32 [batch, frames, width]. With `gives_memory`, the
    outputs are instead those that the paged decoder reads: `cross_key.N` and `cross_value.N`, of the same shape, for
    each layer N of the decoder.
    """
    graph = ModelBuilder("whisper_encoder", weights)
    x = graph.input("input_features", TensorProto.FLOAT, "batch", config.num_mel_bins, "twice the frames")
    for name, stride in (("conv1", 1), ("conv2", 2)):
        given = graph.vector(f"model.encoder.{name}.weight"), graph.vector(f"model.encoder.{name}.bias")
        x = graph.op("Conv", x, *given, kernel_shape=[3], pads=[1, 1], strides=[stride])
        x = graph.activation(x, config.activation_function)
    x = graph.op("Transpose", x, perm=[0, 2, 1])
    x = graph.op("Add", x, graph.embedding(steps_of(graph, x), "model.encoder.embed_positions"))
    heads = config.encoder_attention_heads
    for index in range(config.encoder_layers):
        name = f"model.encoder.layers.{index}"
        normed = graph.layer_norm(x, f"{name}.self_attn_layer_norm", _EPSILON)
        query, key, value = (_project(graph, f"{name}.self_attn", kind, normed) for kind in ("q", "k", "v"))
        attended = attend(graph, query, key, value, num_heads=heads, scale=(config.d_model // heads) ** -0.5)
        x = graph.op("Add", x, _project(graph, f"{name}.self_attn", "out", attended))
        x = _mlp(graph, config, name, x)
    x = graph.layer_norm(x, "model.encoder.layer_norm", _EPSILON)
    if not gives_memory:
        graph.result(x, "last_hidden_state", "batch", "frames", config.d_model)
        return graph.build()
    for index in range(config.decoder_layers):
        for kind, name in (("k", "cross_key"), ("v", "cross_value")):
            memory = _project(graph, f"model.decoder.layers.{index}.encoder_attn", kind, x)
            graph.result(memory, f"{name}.{index}", "batch", "frames", config.d_model)
    return graph.build()


def write_whisper_decoder(
    config: WhisperConfig, weights: Weights, form_name: FormName, num_positions: int
) -> HeldModel:
    """Write Whisper's decoder in the form `form_name`, for contexts of up to `num_positions` tokens. `forms` and
    `source` describe its inputs and outputs.
    """
    graph = ModelBuilder("whisper_decoder", weights)
    form = form_of(form_name, graph, num_positions)
    source = source_of(form_name, graph, config.d_model, is_masked=False)
    form.put_logits(_logits(graph, config, form, source), config.vocab_size)
    return graph.build()


def write_whisper_alignment(config: WhisperConfig, weights: Weights, num_words: int) -> HeldModel:
    """Build the decoder that aligns a whole text with the sound by its cross-attention. Inputs: `input_ids` INT64 [1,
    tokens], and `next_ids` of the same shape, the token after each of `input_ids`; for each layer N `cross_key.N` and
    `cross_value.N`, the encoder's outputs with `gives_memory`. Outputs: `scores` FP32 [heads, tokens, frames], the
    scores of the alignment heads before the softmax; `probabilities` FP32 [1, tokens], the probability of each next
    token among the tokens below `num_words`; it is meaningless for other next tokens.

    Raises:
        InvalidArgumentError: the config names a head that the decoder does not have.
    """
    heads = config.alignment_heads or _upper_heads(config)
    for layer, head in heads:
        if layer >= config.decoder_layers or head >= config.decoder_attention_heads:
            raise InvalidArgumentError(
                f"alignment_heads names head {head} of layer {layer}; the decoder has {config.decoder_layers} layers "
                f"of {config.decoder_attention_heads} heads"
            )
    graph = ModelBuilder("whisper_alignment", weights)
    form = form_of("plain", graph, config.max_target_positions)
    following = graph.input("next_ids", TensorProto.INT64, "batch", "tokens")
    source = WatchedSource(graph, config.d_model, heads)
    logits = _logits(graph, config, form, source)
    words = graph.op("Slice", logits, graph.ints(0), graph.ints(num_words), graph.ints(2))
    shares = graph.op("Softmax", words, axis=-1)
    limited = graph.op("Min", following, graph.number(num_words - 1))
    found = graph.op("GatherElements", shares, graph.op("Unsqueeze", limited, graph.ints(2)), axis=2)
    graph.result(graph.op("Squeeze", found, graph.ints(2)), "probabilities", "batch", "tokens")
    graph.result(source.scores(), "scores", len(heads), "tokens", "source")
    return graph.build()


def _upper_heads(config: WhisperConfig) -> tuple[tuple[int, int], ...]:
    """The alignment heads of openai/whisper if none are named: all heads of the upper half of the layers."""
    layers = range(config.decoder_layers // 2, config.decoder_layers)
    return tuple((layer, head) for layer in layers for head in range(config.decoder_attention_heads))


def _logits(graph: ModelBuilder, config: WhisperConfig, form: Form, source: Source) -> str:
    places = graph.embedding(form.positions(), "model.decoder.embed_positions")
    x = graph.op("Add", graph.embedding(form.ids, "model.decoder.embed_tokens"), places)
    heads, size = config.decoder_attention_heads, config.d_model // config.decoder_attention_heads
    scale = size**-0.5
    for index in range(config.decoder_layers):
        name = f"model.decoder.layers.{index}"
        normed = graph.layer_norm(x, f"{name}.self_attn_layer_norm", _EPSILON)
        query, key, value = (_project(graph, f"{name}.self_attn", kind, normed) for kind in ("q", "k", "v"))
        attended = form.attend(query, key, value, num_heads=heads, num_kv_heads=heads, head_size=size, scale=scale)
        x = graph.op("Add", x, _project(graph, f"{name}.self_attn", "out", attended))
        cross = f"{name}.encoder_attn"
        query = _project(graph, cross, "q", graph.layer_norm(x, f"{cross}_layer_norm", _EPSILON))
        key = source.read(f"cross_key.{index}", lambda states, cross=cross: _project(graph, cross, "k", states))
        value = source.read(f"cross_value.{index}", lambda states, cross=cross: _project(graph, cross, "v", states))
        attended = source.attend(query, key, value, num_heads=heads, scale=scale)
        x = graph.op("Add", x, _project(graph, cross, "out", attended))
        x = _mlp(graph, config, name, x)
    x = graph.layer_norm(form.wanted(x), "model.decoder.layer_norm", _EPSILON)
    return graph.linear(x, "model.decoder.embed_tokens")


_EPSILON = 1e-5


def _project(graph: ModelBuilder, name: str, kind: str, x: str) -> str:
    return graph.linear(x, f"{name}.{kind}_proj", has_bias=kind != "k")


def _mlp(graph: ModelBuilder, config: WhisperConfig, name: str, x: str) -> str:
    normed = graph.layer_norm(x, f"{name}.final_layer_norm", _EPSILON)
    wide = graph.activation(graph.linear(normed, f"{name}.fc1", has_bias=True), config.activation_function)
    return graph.op("Add", x, graph.linear(wide, f"{name}.fc2", has_bias=True))
