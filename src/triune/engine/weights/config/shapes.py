"""The tensors that an architecture with a given config consists of. A checkpoint must have them, and no others."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from triune.engine.weights.config.bert import BertConfig
from triune.engine.weights.config.gpt2 import Gpt2Config
from triune.engine.weights.config.llama import LlamaConfig
from triune.engine.weights.config.t5 import T5Config
from triune.engine.weights.config.whisper import WhisperConfig

Shape: TypeAlias = tuple[int, ...]
_Shapes: TypeAlias = Iterator[tuple[str, Shape]]


def tensor_shapes(config: LlamaConfig | Gpt2Config | BertConfig | T5Config | WhisperConfig) -> Mapping[str, Shape]:
    """The shape of each tensor that a model with this config has, by the tensor's name."""
    match config:
        case LlamaConfig():
            return dict(_llama(config))
        case Gpt2Config():
            return dict(_gpt2(config))
        case BertConfig():
            return dict(_bert(config))
        case T5Config():
            return dict(_t5(config))
        case WhisperConfig():
            return dict(_whisper(config))


def _llama(config: LlamaConfig) -> _Shapes:
    width, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    yield "model.embed_tokens.weight", (config.vocab_size, width)
    yield "model.norm.weight", (width,)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", (config.vocab_size, width)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if config.has_post_norms:
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        for norm in norms:
            yield f"{prefix}.{norm}.weight", (width,)
        if config.qk_norm:
            yield f"{prefix}.self_attn.q_norm.weight", (config.head_dim,)
            yield f"{prefix}.self_attn.k_norm.weight", (config.head_dim,)
        yield from _linear(f"{prefix}.self_attn.q_proj", queries, width, config.attention_bias)
        yield from _linear(f"{prefix}.self_attn.k_proj", keys, width, config.attention_bias)
        yield from _linear(f"{prefix}.self_attn.v_proj", keys, width, config.attention_bias)
        yield from _linear(f"{prefix}.self_attn.o_proj", width, queries, config.attention_output_bias)
        yield from _linear(f"{prefix}.mlp.gate_proj", inner, width, config.mlp_bias)
        yield from _linear(f"{prefix}.mlp.up_proj", inner, width, config.mlp_bias)
        yield from _linear(f"{prefix}.mlp.down_proj", width, inner, config.mlp_bias)


def _gpt2(config: Gpt2Config) -> _Shapes:
    width = config.n_embd
    yield "transformer.wte.weight", (config.vocab_size, width)
    yield "transformer.wpe.weight", (config.n_positions, width)
    yield from _norm("transformer.ln_f", width)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", (config.vocab_size, width)
    for layer in range(config.n_layer):
        prefix = f"transformer.h.{layer}"
        yield from _norm(f"{prefix}.ln_1", width)
        yield from _norm(f"{prefix}.ln_2", width)
        yield from _linear(f"{prefix}.attn.c_attn", 3 * width, width, True)
        yield from _linear(f"{prefix}.attn.c_proj", width, width, True)
        yield from _linear(f"{prefix}.mlp.c_fc", config.n_inner, width, True)
        yield from _linear(f"{prefix}.mlp.c_proj", width, config.n_inner, True)


def _bert(config: BertConfig) -> _Shapes:
    width = config.hidden_size
    yield "embeddings.word_embeddings.weight", (config.vocab_size, width)
    yield "embeddings.position_embeddings.weight", (config.max_position_embeddings, width)
    yield "embeddings.token_type_embeddings.weight", (config.type_vocab_size, width)
    yield from _norm("embeddings.LayerNorm", width)
    for layer in range(config.num_hidden_layers):
        prefix = f"encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            yield from _linear(f"{prefix}.attention.self.{name}", width, width, True)
        yield from _linear(f"{prefix}.attention.output.dense", width, width, True)
        yield from _norm(f"{prefix}.attention.output.LayerNorm", width)
        yield from _linear(f"{prefix}.intermediate.dense", config.intermediate_size, width, True)
        yield from _linear(f"{prefix}.output.dense", width, config.intermediate_size, True)
        yield from _norm(f"{prefix}.output.LayerNorm", width)
    if config.has_pooler or config.head == "sequence":
        yield from _linear("pooler.dense", width, width, True)
    if config.head is not None:
        yield from _linear("classifier", len(config.labels), width, True)


def _t5(config: T5Config) -> _Shapes:
    width, heads = config.d_model, config.num_heads * config.d_kv
    yield "shared.weight", (config.vocab_size, width)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", (config.vocab_size, width)
    for stack, num_layers in (("encoder", config.num_layers), ("decoder", config.num_decoder_layers)):
        attentions = ["SelfAttention", "EncDecAttention"] if stack == "decoder" else ["SelfAttention"]
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        yield bias, (config.relative_attention_num_buckets, config.num_heads)
        yield f"{stack}.final_layer_norm.weight", (width,)
        for block in range(num_layers):
            prefix = f"{stack}.block.{block}.layer"
            for index, attention in enumerate(attentions):
                yield f"{prefix}.{index}.layer_norm.weight", (width,)
                for name in ("q", "k", "v"):
                    yield f"{prefix}.{index}.{attention}.{name}.weight", (heads, width)
                yield f"{prefix}.{index}.{attention}.o.weight", (width, heads)
            prefix = f"{prefix}.{len(attentions)}"
            yield f"{prefix}.layer_norm.weight", (width,)
            for name in ("wi_0", "wi_1") if config.is_gated_act else ("wi",):
                yield f"{prefix}.DenseReluDense.{name}.weight", (config.d_ff, width)
            yield f"{prefix}.DenseReluDense.wo.weight", (width, config.d_ff)


def _whisper(config: WhisperConfig) -> _Shapes:
    width = config.d_model
    yield "model.encoder.conv1.weight", (width, config.num_mel_bins, 3)
    yield "model.encoder.conv1.bias", (width,)
    yield "model.encoder.conv2.weight", (width, width, 3)
    yield "model.encoder.conv2.bias", (width,)
    yield "model.encoder.embed_positions.weight", (config.max_source_positions, width)
    yield "model.decoder.embed_positions.weight", (config.max_target_positions, width)
    yield "model.decoder.embed_tokens.weight", (config.vocab_size, width)
    for stack, num_layers, inner in (
        ("encoder", config.encoder_layers, config.encoder_ffn_dim),
        ("decoder", config.decoder_layers, config.decoder_ffn_dim),
    ):
        yield from _norm(f"model.{stack}.layer_norm", width)
        for layer in range(num_layers):
            prefix = f"model.{stack}.layers.{layer}"
            for attention in ("self_attn", "encoder_attn") if stack == "decoder" else ("self_attn",):
                for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    yield from _linear(f"{prefix}.{attention}.{name}", width, width, name != "k_proj")
                yield from _norm(f"{prefix}.{attention}_layer_norm", width)
            yield from _linear(f"{prefix}.fc1", inner, width, True)
            yield from _linear(f"{prefix}.fc2", width, inner, True)
            yield from _norm(f"{prefix}.final_layer_norm", width)


def _linear(name: str, rows: int, columns: int, has_bias: bool) -> _Shapes:
    yield f"{name}.weight", (rows, columns)
    if has_bias:
        yield f"{name}.bias", (rows,)


def _norm(name: str, width: int) -> _Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)
