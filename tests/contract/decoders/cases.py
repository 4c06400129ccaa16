"""The decoders of `hugging_face` by Triune's configs, and their weights, dense or packed."""

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from contract.decoders.hugging_face import weight
from triune.engine.weights import DenseTensor, PackedTensor, Tensor
from triune.engine.weights.config import (
    DynamicScaling,
    Gpt2Config,
    Layer,
    LinearScaling,
    Llama3Scaling,
    LlamaConfig,
    LongScaling,
    Rope,
    YarnScaling,
)
from triune.engine.weights.tensors import Bits, pack_nibbles

PackedForm = Literal["signed", "zero points", "offsets"]
"""What a block has beside its scale."""

VOCABULARY = 48
_ROPE = Rope(10000.0, 8)
_LLAMA = LlamaConfig(
    model_type="llama",
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=40,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    layers=(Layer(0, _ROPE),) * 2,
    attention_scale=8**-0.5,
    rms_norm_eps=1e-5,
)
_GEMMA = replace(
    _LLAMA,
    model_type="gemma",
    head_dim=16,
    layers=(Layer(0, Rope(10000.0, 16)),) * 2,
    attention_scale=0.25,
    hidden_act="gelu_pytorch_tanh",
    norm_weight_offset=1.0,
    tie_word_embeddings=True,
    embedding_multiplier=math.sqrt(32),
)


def _scaled(scaling: Any) -> LlamaConfig:
    return replace(_LLAMA, layers=(Layer(0, replace(_ROPE, scaling=scaling)),) * 2)


_LOCAL, _GLOBAL = Layer(6, Rope(1000.0, 16)), Layer(0, Rope(100000.0, 16, LinearScaling(4.0)))

CONFIGS: dict[str, LlamaConfig | Gpt2Config] = {
    "llama 2": replace(_LLAMA, num_key_value_heads=4),
    "llama 3": replace(_scaled(Llama3Scaling(8.0, 1.0, 4.0, 16)), tie_word_embeddings=True),
    "biases everywhere": replace(_LLAMA, attention_bias=True, attention_output_bias=True, mlp_bias=True),
    "linear": _scaled(LinearScaling(4.0)),
    # Dynamic NTK in Hugging Face's models follows the length of the text, which is 40 tokens.
    "dynamic": replace(_scaled(DynamicScaling(2.0, 16)), max_position_embeddings=40),
    "yarn": _scaled(YarnScaling(4.0, 16, 0.1 * math.log(4.0) + 1)),
    "longrope": _scaled(
        LongScaling((1.0, 1.1, 1.3, 1.7), (1.0, 1.5, 2.5, 4.0), 16, math.sqrt(1 + math.log(4) / math.log(16)))
    ),
    "part of a head": replace(_LLAMA, layers=(Layer(0, Rope(10000.0, 4)),) * 2),
    "mistral": replace(_LLAMA, num_key_value_heads=1, layers=(Layer(6, _ROPE),) * 2),
    "qwen 2": replace(_LLAMA, model_type="qwen2", attention_bias=True, tie_word_embeddings=True),
    "qwen 3": replace(
        _LLAMA,
        model_type="qwen3",
        head_dim=16,
        layers=(Layer(0, Rope(10000.0, 16)),) * 2,
        attention_scale=0.25,
        qk_norm=True,
    ),
    "gemma 1": _GEMMA,
    "gemma 2": replace(
        _GEMMA,
        model_type="gemma2",
        layers=(Layer(6, Rope(10000.0, 16)), Layer(0, Rope(10000.0, 16)), Layer(6, Rope(10000.0, 16))),
        attention_scale=20**-0.5,
        has_post_norms=True,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    ),
    "gemma 3": replace(
        _GEMMA,
        model_type="gemma3_text",
        layers=(_LOCAL, _LOCAL, _GLOBAL),
        attention_scale=20**-0.5,
        has_post_norms=True,
        qk_norm=True,
    ),
    "gpt 2": Gpt2Config(
        vocab_size=VOCABULARY,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_inner=40,
        scale_attn_by_inverse_layer_idx=True,
    ),
}


class SeededWeights:
    """The weights of a config, as a checkpoint gives them; matrices of the layers are packed if `bits` is given."""

    def __init__(self, config: LlamaConfig | Gpt2Config, bits: Bits | None = None, form: PackedForm = "signed") -> None:
        self._shapes = _gpt2_shapes(config) if isinstance(config, Gpt2Config) else _llama_shapes(config)
        self._is_gemma = isinstance(config, LlamaConfig) and config.model_type.startswith("gemma")
        self._bits = bits
        self._form: PackedForm = form

    def tensor(self, name: str) -> Tensor:
        """The weight of this name."""
        dense = self.dense(name)
        if self._bits is None or dense.ndim == 1:
            return DenseTensor(dense, "F32")
        return packed(dense, self._bits, self._form)

    def dense(self, name: str) -> NDArray[np.float32]:
        """The weight before it is packed."""
        return weight(name, self._shapes[name], is_gemma=self._is_gemma)


class Unpacked:
    """The weights of another source, all dense, exactly as they are packed there."""

    def __init__(self, weights: SeededWeights) -> None:
        self._weights = weights

    def tensor(self, name: str) -> DenseTensor:
        """The weight of this name."""
        return DenseTensor(self._weights.tensor(name).dequantize(), "F32")


def packed(dense: NDArray[np.float32], bits: Bits, form: PackedForm, block: int = 8) -> PackedTensor:
    """A matrix in blocks of 8, rounded to codes of `bits`."""
    rows, columns = dense.shape
    blocks = dense.reshape(rows, columns // block, block)
    steps = 2**bits - 1
    zeros = offsets = None
    if form == "signed":
        scales = (np.abs(blocks).max(-1) / (steps // 2)).astype(np.float16)
        codes = np.round(blocks / scales[..., None]).astype(np.int8).view(np.uint8)
    else:
        is_whole = form == "zero points"
        low, high = blocks.min(-1), blocks.max(-1)
        if is_whole:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
        scales = ((high - low) / steps).astype(np.float16)
        zeros = np.clip(np.round(-low / scales), 0, steps).astype(np.uint8) if is_whole else None
        offsets = None if is_whole else low
        shift = low[..., None] if zeros is None else -zeros[..., None] * scales[..., None].astype(np.float32)
        codes = np.clip(np.round((blocks - shift) / scales[..., None]), 0, steps).astype(np.uint8)
    codes = codes.reshape(rows, columns)
    kept = pack_nibbles(codes & 15) if bits == 4 else codes
    return PackedTensor(kept, bits, scales, zeros, block, "Q", offsets=offsets)


def _llama_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    width, head = config.hidden_size, config.head_dim
    heads, kv_heads = config.num_attention_heads * head, config.num_key_value_heads * head
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, width),
        "lm_head.weight": (config.vocab_size, width),
        "model.norm.weight": (width,),
    }
    for index in range(len(config.layers)):
        name = f"model.layers.{index}"
        matrices = {
            "self_attn.q_proj": (heads, width),
            "self_attn.k_proj": (kv_heads, width),
            "self_attn.v_proj": (kv_heads, width),
            "self_attn.o_proj": (width, heads),
            "mlp.gate_proj": (config.intermediate_size, width),
            "mlp.up_proj": (config.intermediate_size, width),
            "mlp.down_proj": (width, config.intermediate_size),
        }
        for each, shape in matrices.items():
            shapes |= {f"{name}.{each}.weight": shape, f"{name}.{each}.bias": shape[:1]}
        for each in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            shapes[f"{name}.{each}_layernorm.weight"] = (width,)
        shapes |= {f"{name}.self_attn.{each}_norm.weight": (head,) for each in ("q", "k")}
    return shapes


def _gpt2_shapes(config: Gpt2Config) -> dict[str, tuple[int, ...]]:
    width = config.n_embd
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (config.vocab_size, width),
        "transformer.wpe.weight": (config.n_positions, width),
        "transformer.ln_f.weight": (width,),
        "transformer.ln_f.bias": (width,),
    }
    for index in range(config.n_layer):
        name = f"transformer.h.{index}"
        matrices = {
            "attn.c_attn": (3 * width, width),
            "attn.c_proj": (width, width),
            "mlp.c_fc": (config.n_inner, width),
            "mlp.c_proj": (width, config.n_inner),
        }
        for each, shape in matrices.items():
            shapes |= {f"{name}.{each}.weight": shape, f"{name}.{each}.bias": shape[:1]}
        for each in ("ln_1", "ln_2"):
            shapes |= {f"{name}.{each}.weight": (width,), f"{name}.{each}.bias": (width,)}
    return shapes
