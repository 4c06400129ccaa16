"""Checkpoints that the engine can serve."""

from pathlib import Path
from typing import Final

from triune.core.errors import UnsupportedError
from triune.engine.weights.checkpoint import Checkpoint
from triune.engine.weights.config import Gpt2Config, LlamaConfig, ModelConfig
from triune.engine.weights.open import open_checkpoint

_TWO_GRAPHS: Final = "serve its two graphs as tensor models (triune convert --function encoder, and decoder)"
_OTHERS: Final = {
    "BertConfig": ("an encoder (BERT)", "remove 'backend' from its config, and backend 'encoder' serves it"),
    "T5Config": ("T5", _TWO_GRAPHS),
    "WhisperConfig": ("Whisper", "remove 'backend' from its config, and backend 'speech' serves it"),
}
"""What other checkpoints are, and what can be done with them."""


def open_decoder_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint of a model that generates text.

    Raises:
        UnsupportedError: it is one of another kind; and as `open_checkpoint` raises.
    """
    # OpenVINO reads blocks with offsets, so that the weights of all forms stay packed and exact.
    checkpoint = open_checkpoint(path, inexact="offsets")
    if not isinstance(checkpoint.config, LlamaConfig | Gpt2Config):
        what, remedy = _OTHERS[type(checkpoint.config).__name__]
        raise UnsupportedError(
            f"{path.name} is {what}; backend 'transformer' serves LLaMA's family and GPT-2, which generate text: "
            f"{remedy}"
        )
    return checkpoint


def longest_context(config: ModelConfig) -> int:
    """The most tokens that a model was made for."""
    assert isinstance(config, LlamaConfig | Gpt2Config)
    return config.max_position_embeddings if isinstance(config, LlamaConfig) else config.n_positions
