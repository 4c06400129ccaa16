"""The names that the architecture's graph has for the tensors in safetensors files."""

import re
from typing import Final

from triune.engine.weights.config import BertConfig, Gpt2Config, LlamaConfig, ModelConfig, T5Config

_LEFT_OUT: Final = re.compile(
    r".*\.rotary_emb\.inv_freq|.*\.attn\.(masked_)?bias|(bert\.)?embeddings\.position_ids|proj_out\.weight"
)
"""Tensors that are not read: tables that the graph computes, masks and copies of the embedding."""
_OF_PICTURES: Final = re.compile(r"(model\.)?(vision_tower|multi_modal_projector|vision_model)\..*")
_LEFT_OUT_OF_T5: Final = re.compile(
    r"(encoder|decoder)\.embed_tokens\.weight"
    r"|decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
)
"""Tensors of T5 that are not read: copies of the embedding, and a bias that the first T5's code wrote but never used.
"""


def canonical(name: str, config: ModelConfig) -> str | None:
    """The graph's name for a tensor or module of the files; None if the graph does not use it."""
    if _LEFT_OUT.fullmatch(name) or is_of_pictures(name):
        return None
    match config:
        case LlamaConfig():
            # Remove the prefixes that the text part has in files of models that also take pictures: the older one, then
            # the newer one.
            name = name.removeprefix("language_model.")
            name = (
                name.replace("model.language_model.", "model.", 1) if name.startswith("model.language_model.") else name
            )
            return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"
        case Gpt2Config():
            return name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
        case BertConfig():
            name = name.removeprefix("bert.")
            # Rename gamma and beta, TensorFlow's names, which files converted from the first BERT have.
            return re.sub(r"LayerNorm\.(gamma|beta)$", _norm_word, name)
        case T5Config():
            return None if _LEFT_OUT_OF_T5.fullmatch(name) else name
        case _:
            return name if name.startswith("model.") else f"model.{name}"


def is_of_pictures(name: str) -> bool:
    """Whether a tensor of the files belongs to the part for pictures, which no graph has."""
    return _OF_PICTURES.fullmatch(name) is not None


def _norm_word(found: re.Match[str]) -> str:
    return "LayerNorm.weight" if found[1] == "gamma" else "LayerNorm.bias"


def is_transposed(name: str, config: ModelConfig) -> bool:
    """Whether the file has a matrix as [in, out], as GPT-2's files do."""
    return isinstance(config, Gpt2Config) and re.search(r"\.(c_attn|c_proj|c_fc)\.weight$", name) is not None


def parts(name: str, config: ModelConfig) -> list[tuple[str, slice]] | None:
    """The tensors that a joined tensor of the files consists of, each with its rows; None if it is not joined."""
    if not isinstance(config, LlamaConfig) or (found := _JOINED.fullmatch(name)) is None:
        return None
    layer, joined, kind = found.groups()
    if joined == "mlp.gate_up_proj":
        at = config.intermediate_size
        names = [("mlp.gate_proj", slice(0, at)), ("mlp.up_proj", slice(at, 2 * at))]
    else:
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        names = [
            ("self_attn.q_proj", slice(0, queries)),
            ("self_attn.k_proj", slice(queries, queries + keys)),
            ("self_attn.v_proj", slice(queries + keys, queries + 2 * keys)),
        ]
    return [(f"{layer}.{part}.{kind}", rows) for part, rows in names]


_JOINED: Final = re.compile(
    r"(model\.layers\.[0-9]+)\.(self_attn\.qkv_proj|mlp\.gate_up_proj)\.(weight|bias)", re.ASCII
)
