"""A model's weights, config and tokenizer on disk: a GGUF file, or a directory in Hugging Face's form."""

from collections.abc import Sequence
from typing import Protocol

from triune.engine.weights.config import ModelConfig
from triune.engine.weights.tensors import Tensor
from triune.engine.weights.tokenizer.template import ChatTemplate
from triune.engine.weights.tokenizer.tokenizer import Tokenizer


class Checkpoint(Protocol):
    """An opened checkpoint. Its files are mapped into memory, a tensor is read when asked for, in any thread."""

    @property
    def config(self) -> ModelConfig:
        """The architecture and its sizes."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """The names of the tensors, in Hugging Face's form: `model.layers.0.self_attn.q_proj.weight`."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it. Raises as `tensor` does."""
        ...

    def tensor(self, name: str) -> Tensor:
        """A tensor; matrices are [out, in], whatever the file has. Each call reads it again.

        Raises:
            NotFoundError: there is no such tensor.
            InvalidArgumentError: the file's bytes are no such tensor.
        """
        ...

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, built at each call.

        Raises:
            NotFoundError: there is none.
            UnsupportedError: it is of a kind that is not known here.
            InvalidArgumentError: it is broken, or gives ids that the embedding has no rows for.
        """
        ...

    @property
    def chat_template(self) -> ChatTemplate | None:
        """How the model wants a conversation written, compiled at each look; None if the files do not say.

        Raises:
            InvalidArgumentError: it is no template.
        """
        ...
