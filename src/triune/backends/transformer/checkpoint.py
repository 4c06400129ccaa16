"""What the engine can serve: checkpoints, and decoders exported to ONNX."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from triune.core.errors import UnsupportedError
from triune.engine.imports.decoder import ExportedDecoder
from triune.engine.models import write_model
from triune.engine.weights.checkpoint import Checkpoint
from triune.engine.weights.config import Gpt2Config, LlamaConfig, ModelConfig
from triune.engine.weights.lora import Adapter
from triune.engine.weights.open import open_checkpoint
from triune.engine.weights.tokenizer.template import ChatTemplate
from triune.engine.weights.tokenizer.tokenizer import Tokenizer
from triune.graph.held import HeldModel

_TWO_GRAPHS: Final = "serve its two graphs as tensor models (triune convert --function encoder, and decoder)"
_OTHERS: Final = {
    "BertConfig": ("an encoder (BERT)", "remove 'backend' from its config, and backend 'encoder' serves it"),
    "T5Config": ("T5", _TWO_GRAPHS),
    "WhisperConfig": ("Whisper", "remove 'backend' from its config, and backend 'speech' serves it"),
}
"""What other checkpoints are, and what can be done with them."""

_EXPORT: Final = ".onnx"


class DecoderFiles(Protocol):
    """The opened files of a model that generates text."""

    @property
    def vocab_size(self) -> int:
        """The size of the logits."""
        ...

    @property
    def context_tokens(self) -> int:
        """The most tokens that the model was made for."""
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
        """What LoRA adapters are compared with; None if the model takes none."""
        ...

    def write(self, num_positions: int, adapters: Sequence[Adapter]) -> HeldModel:
        """The graph in the paged form, for contexts of up to `num_positions` tokens, with LoRA adapters.

        Raises:
            UnsupportedError: the model cannot be written so.
            InvalidArgumentError: it is broken, or has no positions for such a context.
        """
        ...


def open_decoder_files(path: Path) -> DecoderFiles:
    """Open a checkpoint of a model that generates text, or a decoder exported to ONNX.

    Raises:
        UnsupportedError: it is a checkpoint of another kind; and as `open_checkpoint` and `ExportedDecoder` raise.
    """
    if path.suffix == _EXPORT:
        return _ExportedFiles(path)
    # OpenVINO reads blocks with offsets, so that the weights of all forms stay packed and exact.
    checkpoint = open_checkpoint(path, inexact="offsets")
    if not isinstance(checkpoint.config, LlamaConfig | Gpt2Config):
        what, remedy = _OTHERS[type(checkpoint.config).__name__]
        raise UnsupportedError(
            f"{path.name} is {what}; backend 'transformer' serves LLaMA's family and GPT-2, which generate text: "
            f"{remedy}"
        )
    return _CheckpointFiles(checkpoint, checkpoint.config)


class _CheckpointFiles:
    """A checkpoint as `DecoderFiles`."""

    def __init__(self, checkpoint: Checkpoint, config: LlamaConfig | Gpt2Config) -> None:
        self._checkpoint = checkpoint
        self.architecture = config
        self.vocab_size = config.vocab_size
        self.context_tokens = config.max_position_embeddings if isinstance(config, LlamaConfig) else config.n_positions

    def tokenizer(self) -> Tokenizer:
        """See `DecoderFiles`."""
        return self._checkpoint.tokenizer()

    @property
    def chat_template(self) -> ChatTemplate | None:
        """See `DecoderFiles`."""
        return self._checkpoint.chat_template

    def write(self, num_positions: int, adapters: Sequence[Adapter]) -> HeldModel:
        """See `DecoderFiles`."""
        return write_model(self.architecture, self._checkpoint, "paged", num_positions=num_positions, adapters=adapters)


class _ExportedFiles(ExportedDecoder):
    """An exported decoder as `DecoderFiles`."""

    architecture = None

    def write(self, num_positions: int, adapters: Sequence[Adapter]) -> HeldModel:
        """See `DecoderFiles`. `read_adapters` has refused adapters."""
        assert not adapters
        return self.paged(num_positions)
