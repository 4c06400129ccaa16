"""Whisper: an encoder of log-mel spectrograms and a decoder of text."""

from dataclasses import dataclass
from typing import Literal

from triune.engine.weights.config.tokens import NO_TOKENS, SpecialTokens


@dataclass(frozen=True, slots=True)
class WhisperConfig:
    """The sizes and settings of a Whisper model.

    Weights: `model.encoder.{conv1, conv2, embed_positions, layer_norm}`, `model.decoder.{embed_tokens, embed_positions,
    layer_norm}`, `model.{encoder,decoder}.layers.N.{self_attn, encoder_attn}.{q_proj, k_proj, v_proj, out_proj}`
    (k_proj has no bias) with `self_attn_layer_norm`, `encoder_attn_layer_norm`, `fc1`, `fc2`, `final_layer_norm`. The
    output's matrix is the embedding.

    Attributes:
        vocab_size: rows of the embedding.
        num_mel_bins: bands of the spectrogram.
        d_model: the width of encoder and decoder.
        encoder_layers: the encoder's layers.
        encoder_attention_heads: the encoder's heads.
        encoder_ffn_dim: the width of the encoder's MLP.
        decoder_layers: the decoder's layers.
        decoder_attention_heads: the decoder's heads.
        decoder_ffn_dim: the width of the decoder's MLP.
        max_source_positions: the number of frames that the encoder returns: half of those that it reads.
        max_target_positions: the longest text, in tokens.
        activation_function: the activation of the MLPs and after the convolutions; "gelu" is the exact GELU, by erf.
        suppress_tokens: tokens that are never generated.
        begin_suppress_tokens: tokens that are not generated as the first one.
        alignment_heads: the pairs (layer, head) of the decoder whose cross-attention follows the sound, which show when
            a word is spoken; empty if the checkpoint names none.
        tokens: the special tokens: eos, pad and decoder_start.
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
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    alignment_heads: tuple[tuple[int, int], ...] = ()
    tokens: SpecialTokens = NO_TOKENS
