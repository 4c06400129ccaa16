"""Tiny decoders by Hugging Face's configs, and seeded weights for them. It imports numpy only."""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_TOKENS = 40
"""Tokens of the sequence whose logits are stored: more than a block of a cache, a window or an original context."""

STORED = slice(1, None, 3)
"""The tokens whose logits are stored."""

_LLAMA: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}


def _scaled(**parameters: Any) -> dict[str, Any]:
    return _LLAMA | {"rope_parameters": {"rope_theta": 10000.0, **parameters}}


_GEMMA = _LLAMA | {"head_dim": 16, "tie_word_embeddings": True, "hidden_activation": "gelu_pytorch_tanh"}
_GEMMA_WINDOWS = {"sliding_window": 6, "query_pre_attn_scalar": 20, "num_hidden_layers": 3}
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.7],
    "long_factor": [1.0, 1.5, 2.5, 4.0],
    "original_max_position_embeddings": 16,
}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama 2": ("Llama", _LLAMA | {"num_key_value_heads": 4}),
    "llama 3": (
        "Llama",
        _scaled(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=16,
        )
        | {"tie_word_embeddings": True},
    ),
    "biases everywhere": ("Llama", _LLAMA | {"attention_bias": True, "mlp_bias": True}),
    "linear": ("Llama", _scaled(rope_type="linear", factor=4.0)),
    "dynamic": ("Llama", _scaled(rope_type="dynamic", factor=2.0) | {"max_position_embeddings": 16}),
    "yarn": ("Llama", _scaled(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)),
    "longrope": (
        "Phi3",
        _LLAMA | {"rope_parameters": _LONG, "original_max_position_embeddings": 16, "pad_token_id": 0},
    ),
    "part of a head": (
        "Phi3",
        _scaled(rope_type="default", partial_rotary_factor=0.5) | {"pad_token_id": 0},
    ),
    "mistral": ("Mistral", _LLAMA | {"sliding_window": 6, "num_key_value_heads": 1}),
    "qwen 2": ("Qwen2", _LLAMA | {"tie_word_embeddings": True}),
    "qwen 3": ("Qwen3", _LLAMA | {"head_dim": 16}),
    "gemma 1": ("Gemma", _GEMMA),
    "gemma 2": (
        "Gemma2",
        _GEMMA
        | _GEMMA_WINDOWS
        | {
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "gemma 3": (
        "Gemma3",
        _GEMMA
        | _GEMMA_WINDOWS
        | {
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0},
            },
        },
    ),
    "gpt 2": (
        "GPT2",
        {
            "vocab_size": 48,
            "n_positions": 64,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_inner": 40,
            "scale_attn_by_inverse_layer_idx": True,
        },
    ),
}
"""The name of Hugging Face's class without its ending, and its config's arguments."""


def weight(name: str, shape: tuple[int, ...], *, is_gemma: bool) -> NDArray[np.float32]:
    """A weight of this name, always the same. Matrices are [out, in]."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if name.endswith("bias"):
        return values / 4
    if len(shape) == 1:
        # The weights of norms, which Gemma adds 1 to.
        return values / 4 + (not is_gemma)
    return values if "embed" in name or ".wte" in name or ".wpe" in name else values * np.float32(1.5 / shape[1] ** 0.5)


def token_ids() -> NDArray[np.int64]:
    """The sequence, INT64 [NUM_TOKENS]."""
    return np.random.default_rng(7).integers(0, 48, NUM_TOKENS)


_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "all-layers": (
        "llama 3",
        {
            "r": 4,
            "lora_alpha": 6,
            "target_modules": _LAYERS,
            "rank_pattern": {"k_proj": 2, r"layers\.1\.self_attn\.q_proj": 7},
            "alpha_pattern": {"^model.layers.0.mlp.down_proj": 3, "v_proj": 5},
        },
    ),
    "stabilized": ("llama 3", {"r": 3, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "use_rslora": True}),
    "joined": (
        "part of a head",
        {"r": 4, "lora_alpha": 8, "target_modules": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]},
    ),
    "gpt-2": ("gpt 2", {"r": 4, "lora_alpha": 8, "target_modules": ["c_attn", "c_proj", "c_fc"]}),
}
"""LoRA adapters: the case that each is of, and the arguments of PEFT's LoraConfig."""
