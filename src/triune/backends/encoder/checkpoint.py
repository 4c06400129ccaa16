"""Checkpoints of encoders that can be served with texts."""

from dataclasses import replace
from pathlib import Path

from triune.config.encoder import EMBEDDING_OUTPUT, LOGITS_OUTPUT, EncoderOutput
from triune.core.errors import UnsupportedError
from triune.engine.weights import Checkpoint, open_checkpoint
from triune.engine.weights.config import BertConfig


def open_encoder_checkpoint(folder: Path) -> tuple[BertConfig, Checkpoint]:
    """Open a checkpoint, and complete its config: if it has neither a head nor files of sentence-transformers, the
    embedding of a text is the mean of its tokens' outputs, as by default in sentence-transformers.

    Raises:
        UnsupportedError: the model is not an encoder, or it classifies tokens. The errors of `open_checkpoint` are
            raised too.
    """
    checkpoint = open_checkpoint(folder)
    config = checkpoint.config
    if not isinstance(config, BertConfig):
        raise UnsupportedError(
            f"{folder.name} is no encoder, but {type(config).__name__.removesuffix('Config')}: its config "
            "must not name backend 'encoder'"
        )
    if config.head == "token":
        raise UnsupportedError(
            f"{folder.name} classifies tokens, for which there is no interface of texts yet: convert it to ONNX, and "
            "serve it as a tensor model"
        )
    if config.head is None and config.pooling is None:
        config = replace(config, pooling="mean")
    return config, checkpoint


def output_of(config: BertConfig) -> EncoderOutput:
    """The output that clients get: the embedding, or the logits of the classes."""
    if config.head is None:
        return EncoderOutput(EMBEDDING_OUTPUT, config.hidden_size)
    return EncoderOutput(LOGITS_OUTPUT, len(config.labels), config.labels)


def graph_output_of(config: BertConfig) -> str:
    """The name in the graph of the output that clients get: the embedding, or the logits of the classes."""
    return "sentence_embedding" if config.head is None else "logits"
