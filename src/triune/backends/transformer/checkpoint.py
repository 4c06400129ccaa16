"""The files of a decoder that the engine can serve: a checkpoint, or a decoder exported to ONNX."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.explicit_cache import ExplicitSize
from triune.engine.imports.decoder import ExportedDecoder
from triune.engine.models import write_encoder, write_explicit, write_model
from triune.engine.weights.checkpoint import Checkpoint
from triune.engine.weights.config import Gpt2Config, LlamaConfig, ModelConfig, T5Config
from triune.engine.weights.lora import Adapter
from triune.engine.weights.open import open_checkpoint
from triune.engine.weights.read_once import ReadOnce
from triune.engine.weights.tokenizer.template import ChatTemplate
from triune.engine.weights.tokenizer.tokenizer import Tokenizer
from triune.graph.decoder_model import DecoderModel
from triune.graph.held import HeldModel

_OTHERS: Final = {
    "BertConfig": ("an encoder (BERT)", "remove 'backend' from its config, and backend 'encoder' serves it"),
    "WhisperConfig": ("Whisper", "remove 'backend' from its config, and backend 'speech' serves it"),
}
"""Checkpoints that this backend cannot serve, by the class of their config: a name for each kind, and how to
serve it.
"""

_EXPORT: Final = ".onnx"


class DecoderFiles(Protocol):
    """The opened files of a model that generates text."""

    @property
    def vocab_size(self) -> int:
        """The number of logits of a token."""
        ...

    @property
    def context_tokens(self) -> int:
        """The largest number of tokens for which the model was made: of prompt and answer together; or of each, if an
        encoder reads the prompt.
        """
        ...

    @property
    def is_of_any_length(self) -> bool:
        """Whether a context may be longer than `context_tokens`, since the model has no table of positions."""
        ...

    @property
    def start_token(self) -> int | None:
        """The token with which answers begin, if an encoder reads the prompt; None for a model without an encoder."""
        ...

    def context_note(self, num_positions: int) -> str:
        """What differs for short texts if contexts may have `num_positions` tokens (`Rope.context_note`); "" if nothing
        does.
        """
        ...

    def tokenizer(self) -> Tokenizer:
        """The tokenizer: see `Checkpoint.tokenizer`."""
        ...

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The chat template: see `Checkpoint.chat_template`."""
        ...

    @property
    def architecture(self) -> ModelConfig | None:
        """The architecture that LoRA adapters must match; None if the model supports no adapters."""
        ...

    def write_encoder(self) -> HeldModel:
        """The encoder's graph in the packed form, for a model that has one. Its outputs are the inputs of the
        decoder.
        """
        ...

    def write(self, num_positions: int, adapters: Sequence[Adapter]) -> HeldModel:
        """Write the graph in the paged form, for contexts of up to `num_positions` tokens, with LoRA adapters.

        Raises:
            UnsupportedError: the model cannot be written in the paged form.
            InvalidArgumentError: the model is broken, or has no positions for such a context.
        """
        ...


def open_decoder_files(path: Path) -> DecoderFiles:
    """Open a checkpoint of a model that generates text, or a decoder exported to ONNX.

    Raises:
        UnsupportedError: it is a checkpoint of another kind. The errors of `open_checkpoint` and `ExportedDecoder` are
            raised too.
    """
    if path.suffix == _EXPORT:
        return _ExportedFiles(path)
    # Keep the offsets of quantized blocks, which OpenVINO supports: so weights of all formats stay quantized and exact.
    checkpoint = open_checkpoint(path, inexact="offsets")
    if isinstance(checkpoint.config, T5Config):
        return _EncoderDecoderFiles(checkpoint, checkpoint.config, path)
    if not isinstance(checkpoint.config, LlamaConfig | Gpt2Config):
        what, remedy = _OTHERS[type(checkpoint.config).__name__]
        raise UnsupportedError(
            f"{path.name} is {what}; backend 'transformer' serves LLaMA's family, GPT-2 and T5, which generate text: "
            f"{remedy}"
        )
    return _CheckpointFiles(checkpoint, checkpoint.config, path)


class _CheckpointFiles:
    """A checkpoint of a decoder as `DecoderFiles`."""

    is_of_any_length = False
    start_token: int | None = None

    def __init__(self, checkpoint: Checkpoint, config: LlamaConfig | Gpt2Config | T5Config, path: Path) -> None:
        self._checkpoint = checkpoint
        self._path = path
        self.architecture = config
        self.vocab_size = config.vocab_size
        self.context_tokens = config.max_position_embeddings if isinstance(config, LlamaConfig) else config.n_positions

    def context_note(self, num_positions: int) -> str:
        """Implements `DecoderFiles.context_note`."""
        return self.architecture.context_note(num_positions) if isinstance(self.architecture, LlamaConfig) else ""

    def tokenizer(self) -> Tokenizer:
        """Implements `DecoderFiles.tokenizer`."""
        return self._checkpoint.tokenizer()

    @property
    def chat_template(self) -> ChatTemplate | None:
        """Implements `DecoderFiles.chat_template`."""
        return self._checkpoint.chat_template

    def write(self, num_positions: int, adapters: Sequence[Adapter]) -> HeldModel:
        """Implements `DecoderFiles.write`."""
        config, checkpoint = self.architecture, self._checkpoint
        paged = write_model(config, checkpoint, "paged", num_positions=num_positions, adapters=adapters)
        if adapters or isinstance(config, T5Config):
            return paged

        # Core ML's quantized weights have no offset for each block. Weights with such offsets are dequantized, once for
        # all graphs.
        whole = functools.cache(lambda: ReadOnce(open_checkpoint(self._path)))

        def write_size(size: ExplicitSize) -> HeldModel:
            return write_explicit(config, whole(), size, num_positions=num_positions)

        return DecoderModel(paged.model, paged.weights, num_positions, write_size)

    def write_encoder(self) -> HeldModel:
        """Implements `DecoderFiles.write_encoder`."""
        return write_encoder(self.architecture, self._checkpoint, "packed", gives_memory=True)


class _EncoderDecoderFiles(_CheckpointFiles):
    """A checkpoint of T5 as `DecoderFiles`."""

    is_of_any_length = True

    def __init__(self, checkpoint: Checkpoint, config: T5Config, path: Path) -> None:
        """Raises InvalidArgumentError if the config does not name the token with which answers begin."""
        super().__init__(checkpoint, config, path)
        self.start_token = config.tokens.decoder_start
        if self.start_token is None:
            raise InvalidArgumentError(
                f"{path.name}/config.json: there is no decoder_start_token_id, the token that answers begin behind"
            )


class _ExportedFiles(ExportedDecoder):
    """An exported decoder as `DecoderFiles`."""

    architecture = None
    is_of_any_length = False
    start_token: int | None = None

    def context_note(self, num_positions: int) -> str:
        """Implements `DecoderFiles.context_note`: the export has its own table of rotary embeddings."""
        del num_positions
        return ""

    def write_encoder(self) -> HeldModel:
        """Implements `DecoderFiles.write_encoder`. An exported decoder has none."""
        raise UnsupportedError("a decoder that was exported to ONNX has no encoder")

    def write(self, num_positions: int, adapters: Sequence[Adapter]) -> HeldModel:
        """Implements `DecoderFiles.write`. `read_adapters` has refused adapters."""
        assert not adapters
        return self.paged(num_positions)
