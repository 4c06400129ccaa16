"""Whisper: an encoder of log-mel spectrograms and a decoder of text."""

from dataclasses import dataclass
from typing import Literal

from triune.engine.weights.config.tokens import NO_TOKENS, SpecialTokens


@dataclass(frozen=True, slots=True)
class WhisperConfig:
    """Whisper.

    Weights: `model.encoder.{conv1, conv2, embed_positions, layer_norm}`, `model.decoder.{embed_tokens, embed_positions,
    layer_norm}`, `model.{encoder,decoder}.layers.N.{self_attn, encoder_attn}.{q_proj, k_proj, v_proj, out_proj}`
    (k_proj has no bias) with `self_attn_layer_norm`, `encoder_attn_layer_norm`, `fc1`, `fc2`, `final_layer_norm`. The
    output's matrix is the embedding.

    Attributes:
        vocab_size: rows of the embedding.
        num_mel_bins: bands of the spectrogram.
        d_model: the width of both.
        encoder_layers: the encoder's layers.
        encoder_attention_heads: its heads.
        encoder_ffn_dim: the width of its MLP.
        decoder_layers: the decoder's layers.
        decoder_attention_heads: its heads.
        decoder_ffn_dim: the width of its MLP.
        max_source_positions: frames out of the encoder: half of those in.
        max_target_positions: the longest text, in tokens.
        activation_function: of the MLPs and after the convolutions; "gelu" is by erf.
        scale_embedding: whether token embeddings are multiplied by the square root of the width.
        suppress_tokens: never generated.
        begin_suppress_tokens: not generated first.
        tokens: eos, pad and decoder_start.
    """

    vocab_size: int
    num_mel_bins: int
    d_model: int
    encoder_layers: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    decoder_layers: int
    decoder_attention_heads: int
    decoder_ffn_dim: int
    max_source_positions: int
    max_target_positions: int
    activation_function: Literal["gelu", "relu", "silu"] = "gelu"
    scale_embedding: bool = False
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    tokens: SpecialTokens = NO_TOKENS
