"""T5: encoder and decoder with a bias of relative positions."""

from dataclasses import dataclass
from typing import Literal

from triune.engine.weights.config.tokens import NO_TOKENS, SpecialTokens


@dataclass(frozen=True, slots=True)
class T5Config:
    """The sizes and settings of a T5 model.

    Weights: `shared`, `{encoder,decoder}.block.N.layer.0.SelfAttention.{q, k, v, o}` (block 0 also
    `relative_attention_bias`), `decoder.block.N.layer.1.EncDecAttention.{q, k, v, o}`, in the last layer of each block
    `DenseReluDense.{wi, wo}`, or `DenseReluDense.{wi_0, wi_1, wo}` if gated, `layer.I.layer_norm`,
    `{encoder,decoder}.final_layer_norm`, and `lm_head` where the embeddings are not tied. Attention scores are not
    scaled.

    Attributes:
        vocab_size: rows of the embedding.
        d_model: the width.
        d_kv: the width of a head.
        d_ff: the width of the MLP.
        num_layers: the encoder's layers.
        num_decoder_layers: the decoder's layers.
        num_heads: the number of heads.
        relative_attention_num_buckets: the number of buckets of distances: the rows of the relative position bias.
        relative_attention_max_distance: all distances from this one on share a bucket.
        layer_norm_epsilon: added to the mean square in every norm.
        activation: the activation of the MLP, or of its gate if the MLP is gated.
        is_gated_act: whether the MLP is gated.
        tie_word_embeddings: whether the embedding is the output's matrix, too.
        scale_decoder_outputs: whether the decoder's outputs are scaled by d_model^-0.5 before the output's matrix.
        n_positions: the length of the texts of the training, in tokens. It is no limit, since the model knows positions
            by their distances alone.
        tokens: the special tokens: eos, pad and decoder_start.
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    activation: Literal["relu", "gelu_new", "gelu", "silu"] = "relu"
    is_gated_act: bool = False
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool = True
    n_positions: int = 512
    tokens: SpecialTokens = NO_TOKENS
