"""Hugging Face's names for the tensors in GGUF files, and the rows of the file's tensor that each of them consists of.

Source: llama.cpp's gguf-py/gguf/tensor_mapping.py and conversion/.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.engine.weights.config import BertConfig, Gpt2Config, LlamaConfig, ModelConfig
from triune.engine.weights.gguf.file import GgufFile

_BLOCK: Final = re.compile(r"blk\.(0|[1-9][0-9]{0,4})\.(.+)\.(weight|bias)", re.ASCII)
_OTHER: Final = re.compile(r"(.+)\.(weight|bias)", re.ASCII)

USED_BY_CONFIG: Final = frozenset({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
"""Tensors that are settings of the rotary embedding: `read_config` reads them, and the graph does not."""

_LLAMA_LAYER: Final[Mapping[str, str]] = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_LAYER: Final[Mapping[str, str]] = {
    **_LLAMA_LAYER,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_LLAMA: Final[Mapping[str, str]] = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_GPT2_LAYER: Final[Mapping[str, str]] = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_GPT2: Final[Mapping[str, str]] = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}
_BERT_LAYER: Final[Mapping[str, str]] = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
_BERT: Final[Mapping[str, str]] = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
    "cls": "pooler.dense",
    "cls.output": "classifier",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a tensor of the model is in the file: the rows `rows`, in this order, of the file's tensor `name`."""

    name: str
    rows: Array | slice


def name_tensors(file: GgufFile, architecture: str, config: ModelConfig) -> Mapping[str, Source]:
    """Where each tensor of the model is in the file, by Hugging Face's name for it.

    Raises:
        UnsupportedError: the file has a tensor that the architecture does not have.
        InvalidArgumentError: two tensors have one name, or a matrix that joins several tensors has another number of
            rows than they have together.
    """
    named: dict[str, Source] = {}
    for name in file.places:
        if name in USED_BY_CONFIG:
            continue
        for hugging_face, source in _sources(file, name, architecture, config):
            if hugging_face in named:
                raise InvalidArgumentError(
                    f"{file.name}: {named[hugging_face].name!r} and {name!r} are both {hugging_face!r}"
                )
            named[hugging_face] = source
    return named


def _sources(file: GgufFile, name: str, architecture: str, config: ModelConfig) -> list[tuple[str, Source]]:
    match config:
        case LlamaConfig():
            layer_words = _GEMMA_LAYER if config.has_post_norms else _LLAMA_LAYER
            words, prefix = _LLAMA, "model.layers."
        case Gpt2Config():
            words, layer_words, prefix = _GPT2, _GPT2_LAYER, "transformer.h."
        case BertConfig():
            words, layer_words, prefix = _BERT, _BERT_LAYER, "encoder.layer."
        case _:
            raise UnsupportedError(f"{file.name}: GGUF files of {architecture!r} are not read")
    if (in_layer := _BLOCK.fullmatch(name)) is not None:
        layer, word, kind = in_layer.groups()
        if (parts := _PARTED.get((architecture, word))) is not None:
            return [
                (f"{prefix}{layer}.{part}.{kind}", Source(name, rows))
                for part, rows in parts(config, file.places[name].shape, f"{file.name}: {name}")
            ]
        if (found := layer_words.get(word)) is not None:
            rows = _rows(config, architecture, word, file.places[name].shape, f"{file.name}: {name}")
            return [(f"{prefix}{layer}.{found}.{kind}", Source(name, rows))]
    elif (other := _OTHER.fullmatch(name)) is not None and (found := words.get(other[1])) is not None:
        return [(f"{found}.{other[2]}", Source(name, slice(None)))]
    raise UnsupportedError(
        f"{file.name}: the tensor {name!r} is not known of {architecture!r}, so its graph would compute something else"
    )


def _rows(config: ModelConfig, architecture: str, word: str, shape: tuple[int, ...], where: str) -> Array | slice:
    """The order in which to read a tensor's rows. It differs only for queries and keys in files of the architecture
    "llama".

    There llama.cpp's rotary embedding rotates pairs of neighbouring elements, so its files have the rows of a head's
    two halves alternately. Triune's graphs rotate element i of the first half with element i of the second.
    """
    if architecture != "llama" or word not in {"attn_q", "attn_k"} or not isinstance(config, LlamaConfig):
        return slice(None)
    num_heads = config.num_attention_heads if word == "attn_q" else config.num_key_value_heads
    _require_rows(shape[0], num_heads * config.head_dim, where)
    return np.arange(shape[0]).reshape(num_heads, config.head_dim // 2, 2).swapaxes(1, 2).reshape(-1)


def _qkv_parts(config: ModelConfig, shape: tuple[int, ...], where: str) -> list[tuple[str, slice]]:
    assert isinstance(config, LlamaConfig)
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    _require_rows(shape[0], queries + 2 * keys, where)
    return [
        ("self_attn.q_proj", slice(queries)),
        ("self_attn.k_proj", slice(queries, queries + keys)),
        ("self_attn.v_proj", slice(queries + keys, None)),
    ]


def _gate_up_parts(config: ModelConfig, shape: tuple[int, ...], where: str) -> list[tuple[str, slice]]:
    assert isinstance(config, LlamaConfig)
    _require_rows(shape[0], 2 * config.intermediate_size, where)
    return [
        ("mlp.gate_proj", slice(config.intermediate_size)),
        ("mlp.up_proj", slice(config.intermediate_size, None)),
    ]


def _require_rows(found: int, expected: int, where: str) -> None:
    if found != expected:
        raise InvalidArgumentError(f"{where} has {found} rows; by the file's metadata it has {expected}")


_PARTED: Final[Mapping[tuple[str, str], Callable[[ModelConfig, tuple[int, ...], str], list[tuple[str, slice]]]]] = {
    ("phi3", "attn_qkv"): _qkv_parts,
    ("phi3", "ffn_up"): _gate_up_parts,
}
"""Tensors of the file that are concatenations of several of Hugging Face's tensors along the rows, by the architecture
and the tensor's name in the file; and the function that gives the name and the rows of each part.
"""
