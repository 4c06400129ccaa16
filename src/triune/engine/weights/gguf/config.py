"""The config in a GGUF file's metadata. Sources: ggml's docs/gguf.md; llama.cpp where that document says nothing."""

import math
from collections.abc import Mapping
from typing import Final, Literal

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.engine.weights.config import (
    BertConfig,
    FactorScaling,
    Gpt2Config,
    Layer,
    LinearScaling,
    LlamaConfig,
    LongScaling,
    ModelConfig,
    Rope,
    RopeScaling,
    SpecialTokens,
    YarnScaling,
)
from triune.engine.weights.config.heads import require_heads
from triune.engine.weights.fields import MAX_LAYERS, Fields
from triune.engine.weights.gguf.file import GgufFile
from triune.engine.weights.gguf.read import read_tensor

_MODEL_TYPES: Final[Mapping[str, str]] = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "phi3": "phi3",
}
"""The names of the architectures of LLaMA's family in GGUF files, and Hugging Face's names for them."""

_GEMMAS: Final = frozenset({"gemma", "gemma2", "gemma3"})
_SCALED_BY_WIDTH: Final = frozenset({("gemma2", 46), ("gemma3", 62)})
"""The architecture and the number of layers of Gemma 2 and 3 with 27 billion weights. Their attention's scores are
divided by the square root of hidden_size / num_heads, whereas those of other models are divided by that of head_dim.
The files do not say so. Source: llama.cpp.
"""

_POOLINGS: Final[Mapping[int, Literal["mean", "cls"] | None]] = {0: None, 1: "mean", 2: "cls"}

_IGNORED: Final = frozenset({"vocab_size", "rope.scaling.finetuned", "tensor_data_layout"})
"""Settings that the tensors also show, or that do not affect the result."""


def read_config(file: GgufFile) -> tuple[str, ModelConfig]:
    """The architecture's name in the file, and its config.

    Raises:
        UnsupportedError: the architecture or one of its settings is not known here.
        InvalidArgumentError: a setting is missing or impossible.
    """
    general = Fields(file.metadata, file.name)
    if (num_parts := general.whole("split.count", 1, least=0)) > 1:
        raise UnsupportedError(
            f"{file.name}: it is one of {num_parts} files of a model; join them with llama-gguf-split --merge"
        )
    architecture = general.text("general.architecture")
    prefix = f"{architecture}."
    settings = {key.removeprefix(prefix): value for key, value in file.metadata.items() if key.startswith(prefix)}
    fields = Fields(settings, f"{file.name}: {architecture}")
    if architecture in _MODEL_TYPES:
        config: ModelConfig = _llama(file, architecture, fields)
    elif architecture == "gpt2":
        config = _gpt2(file, fields)
    elif architecture == "bert":
        config = _bert(file, fields)
    else:
        known = ", ".join([*_MODEL_TYPES, "gpt2", "bert"])
        raise UnsupportedError(f"{file.name}: the architecture {architecture!r} is not known here; known are {known}")
    fields.refuse_unread(_IGNORED)
    require_heads(config, fields.where)
    return architecture, config


def _llama(file: GgufFile, architecture: str, fields: Fields) -> LlamaConfig:
    num_layers = fields.whole("block_count", most=MAX_LAYERS)
    hidden_size = fields.whole("embedding_length")
    num_heads = _same_in_all(fields, "attention.head_count", num_layers)
    head_dim = fields.whole("attention.key_length", max(1, hidden_size // num_heads))
    if fields.whole("attention.value_length", head_dim) != head_dim:
        raise fields.wrong("attention.value_length", f"{head_dim}, as attention.key_length")
    if not fields.flag("attention.causal", True):
        raise UnsupportedError(
            f"{fields.where}: attention.causal is false; decoders that look ahead are not known here"
        )
    is_gemma, is_gemma2 = architecture in _GEMMAS, architecture == "gemma2"
    by_width = (architecture, num_layers) in _SCALED_BY_WIDTH
    scale = 1 / math.sqrt(hidden_size / num_heads if by_width else head_dim)
    return LlamaConfig(
        model_type=_MODEL_TYPES[architecture],
        vocab_size=_rows(file, "token_embd.weight"),
        hidden_size=hidden_size,
        intermediate_size=_same_in_all(fields, "feed_forward_length", num_layers),
        num_attention_heads=num_heads,
        num_key_value_heads=_same_in_all(fields, "attention.head_count_kv", num_layers, num_heads),
        head_dim=head_dim,
        max_position_embeddings=fields.whole("context_length"),
        layers=_layers(file, architecture, fields, num_layers, head_dim),
        attention_scale=fields.number("attention.scale", scale, above=0),
        hidden_act="gelu_pytorch_tanh" if is_gemma else "silu",
        rms_norm_eps=fields.number("attention.layer_norm_rms_epsilon", above=0),
        # Nothing is added for Gemma: in GGUF files the weights of its norms include the offset of 1.
        norm_weight_offset=0.0,
        tie_word_embeddings="output.weight" not in file.places,
        attention_bias=_has(file, "attn_q.bias", "attn_qkv.bias"),
        attention_output_bias=_has(file, "attn_output.bias"),
        mlp_bias=_has(file, "ffn_up.bias", "ffn_down.bias", "ffn_gate.bias"),
        qk_norm=_has(file, "attn_q_norm.weight"),
        has_post_norms=_has(file, "post_attention_norm.weight"),
        attn_logit_softcapping=fields.number("attn_logit_softcapping", 50.0 if is_gemma2 else 0.0, above=-1e-9),
        final_logit_softcapping=fields.number("final_logit_softcapping", 30.0 if is_gemma2 else 0.0, above=-1e-9),
        embedding_multiplier=math.sqrt(hidden_size) if is_gemma else 1.0,
        tokens=_tokens(file),
    )


def _layers(file: GgufFile, architecture: str, fields: Fields, num_layers: int, head_dim: int) -> tuple[Layer, ...]:
    rope = _rope(file, fields, head_dim)
    window = fields.whole("attention.sliding_window", 4096 if architecture == "gemma2" else 0, least=0)
    given = fields.items("attention.sliding_window_pattern")
    if given is None:
        # One layer of every `period` layers attends to all tokens; the others have a sliding window.
        period = {"gemma2": 2, "gemma3": 6}.get(architecture, 0)
        period = fields.whole("attention.sliding_window_pattern", period, least=0, most=MAX_LAYERS)
        given = [not period or layer % period < period - 1 for layer in range(num_layers)]
    elif len(given) != num_layers:
        raise fields.wrong("attention.sliding_window_pattern", f"a flag for each of {num_layers} layers")
    # Gemma 3's layers with a sliding window have a separate rotary embedding.
    local_base = fields.number("rope.freq_base_swa", 10000.0 if architecture == "gemma3" else 0.0, above=-1e-9)
    local = Rope(local_base, rope.rotary_dim) if local_base else rope
    return tuple(Layer(window, local) if each and window else Layer(0, rope) for each in given)


def _rope(file: GgufFile, fields: Fields, head_dim: int) -> Rope:
    rotary_dim = fields.whole("rope.dimension_count", head_dim, least=2, most=head_dim)
    if rotary_dim % 2:
        raise fields.wrong("rope.dimension_count", "an even number")
    theta = fields.number("rope.freq_base", 10000.0, above=1)
    return Rope(theta, rotary_dim, _scaling(file, fields, rotary_dim))


def _scaling(file: GgufFile, fields: Fields, rotary_dim: int) -> RopeScaling | None:
    factor = fields.number("rope.scaling.factor", fields.number("rope.scale_linear", 1.0, above=0), above=0)
    attention_factor = fields.number("rope.scaling.attn_factor", 1.0, above=0)
    original = fields.whole("rope.scaling.original_context_length", fields.whole("context_length"))
    default = "linear" if factor != 1 else "none"
    kind = fields.choice("rope.scaling.type", {each: each for each in ("none", "linear", "yarn", "longrope")}, default)
    if "rope_factors_long.weight" in file.places or kind == "longrope":
        short, long = (_factors(file, f"rope_factors_{each}.weight", rotary_dim) for each in ("short", "long"))
        return LongScaling(short, long, original, attention_factor)
    if "rope_freqs.weight" in file.places:
        if kind != "none":
            raise UnsupportedError(f"{fields.where}: rope.scaling.type is {kind!r} beside factors in rope_freqs.weight")
        return FactorScaling(_factors(file, "rope_freqs.weight", rotary_dim))
    if kind == "yarn":
        # Unless the file states a factor of cos and sin (`yarn_attn_factor`), it is the one in YaRN's paper, times
        # `attention_factor`.
        natural = (0.1 * math.log(factor) + 1 if factor > 1 else 1.0) * attention_factor
        if fields.number("rope.scaling.yarn_ext_factor", 1.0) not in (1.0, -1.0):
            raise fields.wrong("rope.scaling.yarn_ext_factor", "1")
        return YarnScaling(
            factor,
            original,
            fields.number("rope.scaling.yarn_attn_factor", natural, above=0),
            fields.number("rope.scaling.yarn_beta_fast", 32.0, above=0),
            fields.number("rope.scaling.yarn_beta_slow", 1.0, above=0),
        )
    return LinearScaling(factor) if kind == "linear" and factor != 1 else None


def _factors(file: GgufFile, name: str, rotary_dim: int) -> tuple[float, ...]:
    place = file.places.get(name)
    if place is None or place.shape != (rotary_dim // 2,):
        found = "is missing" if place is None else f"has the shape {list(place.shape)}"
        raise InvalidArgumentError(f"{file.name}: the tensor {name!r} {found}; expected {rotary_dim // 2} factors")
    factors = read_tensor(file, name, "dequantize").dequantize()
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise InvalidArgumentError(f"{file.name}: a factor in {name!r} is not a finite number above 0")
    return tuple(factors.tolist())


def _gpt2(file: GgufFile, fields: Fields) -> Gpt2Config:
    return Gpt2Config(
        vocab_size=_rows(file, "token_embd.weight"),
        n_positions=fields.whole("context_length"),
        n_embd=fields.whole("embedding_length"),
        n_layer=fields.whole("block_count", most=MAX_LAYERS),
        n_head=fields.whole("attention.head_count"),
        n_inner=fields.whole("feed_forward_length"),
        layer_norm_epsilon=fields.number("attention.layer_norm_epsilon", above=0),
        tie_word_embeddings="output.weight" not in file.places,
        tokens=_tokens(file),
    )


def _bert(file: GgufFile, fields: Fields) -> BertConfig:
    if fields.flag("attention.causal", False):
        raise UnsupportedError(f"{fields.where}: attention.causal is true; an encoder that is causal is not known here")
    pooling = fields.whole("pooling_type", 0, least=0, most=8)
    if pooling not in _POOLINGS:
        raise UnsupportedError(f"{fields.where}: pooling_type is {pooling}; known here are 0 (none), 1 (mean), 2 (cls)")
    return BertConfig(
        vocab_size=_rows(file, "token_embd.weight"),
        hidden_size=fields.whole("embedding_length"),
        num_hidden_layers=fields.whole("block_count", most=MAX_LAYERS),
        num_attention_heads=fields.whole("attention.head_count"),
        intermediate_size=fields.whole("feed_forward_length"),
        max_position_embeddings=fields.whole("context_length"),
        type_vocab_size=_rows(file, "token_types.weight"),
        layer_norm_eps=fields.number("attention.layer_norm_epsilon", above=0),
        pooling=_POOLINGS[pooling],
        is_normalized=True,
        tokens=_tokens(file),
    )


def _same_in_all(fields: Fields, name: str, num_layers: int, default: int | None = None) -> int:
    """A number that a file states once, or once for each layer. In the latter case all of them must be equal."""
    values = fields.items(name)
    if values is not None:
        if len(values) != num_layers or any(each != values[0] for each in values):
            raise UnsupportedError(f"{fields.where}: {name} differs between layers, which is not known here")
        return Fields({name: values[0]}, fields.where).whole(name)
    return fields.whole(name, default)


def _rows(file: GgufFile, name: str) -> int:
    place = file.places.get(name)
    if place is None or len(place.shape) != 2:
        raise InvalidArgumentError(f"{file.name}: the tensor {name!r} is {'missing' if place is None else 'no matrix'}")
    return place.shape[0]


def _has(file: GgufFile, *names: str) -> bool:
    return any(f"blk.0.{name}" in file.places for name in names)


def _tokens(file: GgufFile) -> SpecialTokens:
    fields = Fields(file.metadata, file.name)
    ends = (fields.whole_or_none(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    return SpecialTokens(
        bos=fields.whole_or_none("tokenizer.ggml.bos_token_id"),
        eos=tuple(dict.fromkeys(end for end in ends if end is not None)),
        pad=fields.whole_or_none("tokenizer.ggml.padding_token_id"),
    )
