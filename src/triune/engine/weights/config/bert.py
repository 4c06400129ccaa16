"""BERT: an encoder with post-norms and learned absolute positions."""

from dataclasses import dataclass
from typing import Literal

from triune.engine.weights.config.tokens import NO_TOKENS, SpecialTokens


@dataclass(frozen=True, slots=True)
class BertConfig:
    """The sizes and settings of a BERT model.

    Weights, without the prefix `bert.`: `embeddings.{word,position,token_type}_embeddings`, `embeddings.LayerNorm`,
    `encoder.layer.N.{attention.self.{query, key, value}, attention.output.{dense, LayerNorm}, intermediate.dense,
    output.{dense, LayerNorm}}`, `pooler.dense`, `classifier`.

    Attributes:
        vocab_size: rows of the word embedding.
        hidden_size: the width.
        num_hidden_layers: the number of layers.
        num_attention_heads: the number of heads, each hidden_size / num_attention_heads wide.
        intermediate_size: the width of the MLP.
        max_position_embeddings: the longest input, in tokens.
        type_vocab_size: rows of the token type embedding.
        hidden_act: the activation of the MLP; "gelu" is the exact GELU, by erf.
        layer_norm_eps: added to the variance in every norm.
        has_pooler: whether there is a pooler, a layer on the first token of a text.
        head: what is classified, texts ("sequence", on top of the pooler) or each token ("token"); None if nothing is.
        labels: names of the head's classes, in order; empty without a head.
        is_multi_label: whether several labels may hold at once (sigmoid), rather than exactly one (softmax).
        pooling: how a sentence embedding is made, from sentence-transformers' files; None if they say nothing.
        is_normalized: whether sentence embeddings are scaled to length 1, from sentence-transformers' files.
        tokens: the special tokens, of which BERT needs pad.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"] = "gelu"
    layer_norm_eps: float = 1e-12
    has_pooler: bool = False
    head: Literal["sequence", "token"] | None = None
    labels: tuple[str, ...] = ()
    is_multi_label: bool = False
    pooling: Literal["mean", "cls", "max"] | None = None
    is_normalized: bool = False
    tokens: SpecialTokens = NO_TOKENS
