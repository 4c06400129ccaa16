"""config.json of LLaMA's family. Defaults are those of Hugging Face's config classes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from triune.engine.weights.config import Layer, LlamaConfig, SpecialTokens
from triune.engine.weights.config.llama import Activation
from triune.engine.weights.fields import MAX_LAYERS, Fields
from triune.engine.weights.huggingface.rope import read_ropes

_ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_pytorch_tanh",
    "gelu_new": "gelu_pytorch_tanh",
}
_LAYER_TYPES: Final = {"full_attention": "full_attention", "sliding_attention": "sliding_attention"}


@dataclass(frozen=True, slots=True)
class _Kind:
    """What all models of one `model_type` have in common, and the defaults of settings that config.json leaves out.

    Attributes:
        is_gemma: whether norms have an offset of 1, embeddings are multiplied by the square root of the width, and the
            gate is GELU.
        has_qkv_bias: whether queries, keys and values have biases whatever the config says.
        qk_norm: whether queries and keys are normalized.
        has_post_norms: see `LlamaConfig`.
        head_dim: the width of a head; None if it is the model's width divided by the number of heads.
        window: the sliding window in tokens; 0 for none.
        theta: the base of the rotary embedding.
        local_theta: the base of layers with a window; None if it is `theta`.
        period: one layer in this many attends to all tokens, the others have the window; 0 if there is no such rule.
        defaults: sizes that config files leave out.
    """

    is_gemma: bool = False
    has_qkv_bias: bool = False
    qk_norm: bool = False
    has_post_norms: bool = False
    head_dim: int | None = None
    window: int = 0
    theta: float = 10000.0
    local_theta: float | None = None
    period: int = 0
    defaults: Mapping[str, int] | None = None


_GEMMA3_SIZES: Final = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
}
KINDS: Final[Mapping[str, _Kind]] = {
    "llama": _Kind(),
    "mistral": _Kind(window=4096),
    "qwen2": _Kind(has_qkv_bias=True),
    "qwen3": _Kind(qk_norm=True, head_dim=128),
    "smollm3": _Kind(theta=2_000_000.0),
    "phi3": _Kind(),
    "gemma": _Kind(is_gemma=True, head_dim=256),
    "gemma2": _Kind(is_gemma=True, has_post_norms=True, head_dim=256, window=4096, period=2),
    "gemma3_text": _Kind(
        is_gemma=True,
        qk_norm=True,
        has_post_norms=True,
        head_dim=256,
        window=4096,
        theta=1_000_000.0,
        local_theta=10000.0,
        period=6,
        defaults=_GEMMA3_SIZES,
    ),
}
"""The properties of each type of model, by `model_type`."""


def read_llama(fields: Fields, tokens: SpecialTokens) -> LlamaConfig:
    """Make the config from config.json. Raises the errors of `Fields`."""
    model_type = fields.text("model_type")
    kind = KINDS[model_type]
    sizes = kind.defaults or {}
    hidden_size = fields.whole("hidden_size", sizes.get("hidden_size"))
    num_heads = fields.whole("num_attention_heads", sizes.get("num_attention_heads"))
    head_dim = fields.whole("head_dim", kind.head_dim or max(1, hidden_size // num_heads))
    bias = fields.flag("attention_bias", False)
    caps = (50.0, 30.0) if model_type == "gemma2" else (0.0, 0.0)
    scalar = fields.number("query_pre_attn_scalar", 256.0 if kind.has_post_norms else head_dim, above=0)
    act: Activation = fields.choice("hidden_act", _ACTIVATIONS, "silu")
    if kind.is_gemma:
        # Gemma's first files have "gelu" in `hidden_act` by mistake, so only `hidden_activation` is read, as in
        # transformers.
        gelu: Activation = "gelu_pytorch_tanh"
        act = fields.choice("hidden_activation", _ACTIVATIONS, gelu)
    return LlamaConfig(
        model_type=model_type,
        vocab_size=fields.whole("vocab_size", sizes.get("vocab_size")),
        hidden_size=hidden_size,
        intermediate_size=fields.whole("intermediate_size", sizes.get("intermediate_size")),
        num_attention_heads=num_heads,
        num_key_value_heads=fields.whole("num_key_value_heads", sizes.get("num_key_value_heads", num_heads)),
        head_dim=head_dim,
        max_position_embeddings=fields.whole(
            "max_position_embeddings", sizes.get("max_position_embeddings", 8192 if kind.is_gemma else None)
        ),
        layers=_layers(fields, kind, head_dim),
        attention_scale=1 / math.sqrt(scalar if kind.has_post_norms else head_dim),
        hidden_act=act,
        rms_norm_eps=fields.number("rms_norm_eps", 1e-5 if model_type == "phi3" else 1e-6, above=0),
        norm_weight_offset=1.0 if kind.is_gemma else 0.0,
        tie_word_embeddings=fields.flag("tie_word_embeddings", kind.is_gemma),
        attention_bias=kind.has_qkv_bias or bias,
        attention_output_bias=bias and not kind.has_qkv_bias,
        mlp_bias=fields.flag("mlp_bias", False),
        qk_norm=kind.qk_norm,
        has_post_norms=kind.has_post_norms,
        attn_logit_softcapping=_cap(fields, "attn_logit_softcapping", caps[0]),
        final_logit_softcapping=_cap(fields, "final_logit_softcapping", caps[1]),
        embedding_multiplier=math.sqrt(hidden_size) if kind.is_gemma else 1.0,
        tokens=tokens,
    )


def _cap(fields: Fields, name: str, default: float) -> float:
    """A soft cap of scores or logits: 0, for no cap, if the setting is null; `default` if it is missing."""
    return fields.number(name, 0.0 if fields.has(name) else default, above=-1e-9)


def _layers(fields: Fields, kind: _Kind, head_dim: int) -> tuple[Layer, ...]:
    num_layers = fields.whole("num_hidden_layers", (kind.defaults or {}).get("num_hidden_layers"), most=MAX_LAYERS)
    whole, local = read_ropes(fields, head_dim, kind.theta, kind.local_theta)
    window = fields.whole("sliding_window", 0 if fields.has("sliding_window") else kind.window, least=0)
    uses_window = fields.flag("use_sliding_window", fields.text("model_type") not in {"qwen2", "qwen3", "smollm3"})
    first = fields.whole("max_window_layers", 0 if kind.period else 28, least=0)
    has_window = [bool(window and uses_window)] * num_layers
    period = fields.whole("sliding_window_pattern", kind.period, least=0)
    if period:
        has_window = [bool(window) and bool((layer + 1) % period) for layer in range(num_layers)]
    elif "use_sliding_window" in fields and uses_window:
        has_window = [bool(window) and layer >= first for layer in range(num_layers)]
    types = fields.items("layer_types")
    if types is not None:
        if len(types) != num_layers:
            raise fields.wrong("layer_types", f"{num_layers} types, one a layer")
        names = [Fields({"layer_types": each}, fields.where).choice("layer_types", _LAYER_TYPES) for each in types]
        has_window = [each == "sliding_attention" for each in names]
        if any(has_window) and not window:
            raise fields.wrong("sliding_window", "a number, since layer_types has sliding_attention")
    return tuple(
        Layer(window if windowed else 0, (local if windowed else whole) if has_rope else None)
        for windowed, has_rope in zip(has_window, _with_rope(fields, num_layers), strict=True)
    )


def _with_rope(fields: Fields, num_layers: int) -> list[bool]:
    """For each layer, whether it has a rotary embedding. In SmolLM3 every fourth layer has none."""
    flags = fields.items("no_rope_layers")
    period = fields.whole("no_rope_layer_interval", 4 if fields.text("model_type") == "smollm3" else 0, least=0)
    if flags is None:
        return [not period or bool((layer + 1) % period) for layer in range(num_layers)]
    if len(flags) != num_layers or any(each not in (0, 1) for each in flags):
        raise fields.wrong("no_rope_layers", f"{num_layers} of 0 and 1 (has a rotary embedding), one a layer")
    return [bool(each) for each in flags]
