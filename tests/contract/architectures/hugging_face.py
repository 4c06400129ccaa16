"""Tiny encoders and encoder-decoders by Hugging Face's configs, their inputs, and seeded weights. It imports numpy
only.
"""

import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOCABULARY = 48
NUM_TOKENS = 40
"""Tokens of the longer text: more than the largest distance that T5's bias tells apart."""
NUM_SHORT = 11
"""Tokens of the shorter text, which is filled up."""
NUM_TARGETS = 30
NUM_WRITTEN = 24
"""Tokens of a text that T5 writes."""
REPETITION_PENALTY = 2.0
NUM_FRAMES = 34
"""Frames of sound that the encoder returns, fewer than it has positions for."""

_BERT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
}
_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 6,
    "d_ff": 40,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
}
_WHISPER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "num_mel_bins": 8,
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 48,
    "max_source_positions": NUM_FRAMES,
    "max_target_positions": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertModel", _BERT),
    "bert with the gelu of tanh": ("BertModel", _BERT | {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3}),
    "bert for texts": ("BertForSequenceClassification", _BERT | {"num_labels": 3}),
    "bert for tokens": ("BertForTokenClassification", _BERT | {"num_labels": 5}),
    "t5": ("T5ForConditionalGeneration", _T5),
    "t5 1.1": ("T5ForConditionalGeneration", _T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "whisper": ("WhisperForConditionalGeneration", _WHISPER),
}
"""The name of Hugging Face's class, and its config's arguments."""


def weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A weight of this name, always the same."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if name.endswith("bias"):
        return values / 4
    if len(shape) == 1:
        return values / 4 + 1
    if "embed" in name or name == "shared.weight":
        return values
    return values * np.float32(1.5 / math.prod(shape[1:]) ** 0.5)


def inputs() -> dict[str, NDArray[Any]]:
    """Two texts for each input of the graphs; the second is filled up, but for the decoders' texts."""
    rng = np.random.default_rng(7)
    mask = (np.arange(NUM_TOKENS) < np.array([[NUM_TOKENS], [NUM_SHORT]])).astype(np.int64)
    return {
        "input_ids": rng.integers(0, VOCABULARY, (2, NUM_TOKENS)),
        "attention_mask": mask,
        "token_type_ids": rng.integers(0, 2, (2, NUM_TOKENS)),
        "decoder_input_ids": rng.integers(0, VOCABULARY, (2, NUM_TARGETS)),
        "input_features": rng.standard_normal((2, 8, 2 * NUM_FRAMES), np.float32),
    }
