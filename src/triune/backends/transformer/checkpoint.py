"""Checkpoints that the engine can serve."""

from pathlib import Path
from typing import Final

from triune.core.errors import UnsupportedError
from triune.engine.weights.checkpoint import Checkpoint
from triune.engine.weights.config import Gpt2Config, LlamaConfig, ModelConfig
from triune.engine.weights.open import open_checkpoint

_NAMES: Final = {"BertConfig": "an encoder (BERT)", "T5Config": "T5", "WhisperConfig": "Whisper"}


def open_decoder_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint of a model that generates text.

    Raises:
        UnsupportedError: it is one of another kind; and as `open_checkpoint` raises.
    """
    # OpenVINO reads blocks with offsets, so that the weights of all forms stay packed and exact.
    checkpoint = open_checkpoint(path, inexact="offsets")
    if not isinstance(checkpoint.config, LlamaConfig | Gpt2Config):
        kind = type(checkpoint.config).__name__
        raise UnsupportedError(
            f"{path.name} is {_NAMES.get(kind, kind)}; this version serves LLaMA's family and GPT-2, which generate "
            "text: export it to ONNX to serve it as a tensor model"
        )
    return checkpoint


def longest_context(config: ModelConfig) -> int:
    """The most tokens that a model was made for."""
    assert isinstance(config, LlamaConfig | Gpt2Config)
    return config.max_position_embeddings if isinstance(config, LlamaConfig) else config.n_positions
