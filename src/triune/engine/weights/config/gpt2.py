"""The config of GPT-2. Models of GPT-3's published sizes have the same form."""

from dataclasses import dataclass
from typing import Literal

from triune.engine.weights.config.tokens import NO_TOKENS, SpecialTokens


@dataclass(frozen=True, slots=True)
class Gpt2Config:
    """The sizes and settings of a GPT-2 model.

    Weights: `transformer.{wte, wpe, ln_f}`, `transformer.h.N.{ln_1, ln_2, attn.{c_attn, c_proj}, mlp.{c_fc, c_proj}}`,
    all matrices [out, in] (the files of Hugging Face hold them transposed: the checkpoint transposes them back), and
    `lm_head` where the embeddings are not tied.

    Attributes:
        vocab_size: rows of the embedding.
        n_positions: the longest context: rows of the position embedding.
        n_embd: the width.
        n_layer: the number of layers.
        n_head: the number of heads, each n_embd / n_head wide.
        n_inner: the width of the MLP.
        activation_function: the activation of the MLP; "gelu_new" is the tanh approximation, as "gelu_pytorch_tanh" is;
            "gelu" is the exact GELU, by erf.
        layer_norm_epsilon: added to the variance in every norm.
        scale_attn_weights: whether scores are divided by the square root of the head's width.
        scale_attn_by_inverse_layer_idx: whether the scores of layer N (from 0) are also divided by N + 1.
        tie_word_embeddings: whether the embedding is the output's matrix, too.
        tokens: the special tokens: bos, eos and pad.
    """

    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int
    activation_function: Literal["gelu_new", "gelu", "gelu_pytorch_tanh", "relu", "silu"] = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True
    tokens: SpecialTokens = NO_TOKENS
