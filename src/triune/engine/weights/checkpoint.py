"""A model's weights, config and tokenizer on disk: a GGUF file, or a directory in the form of Hugging Face or
CTranslate2.
"""

from collections.abc import Sequence
from typing import Protocol

from triune.engine.weights.config import ModelConfig
from triune.engine.weights.tensors import Tensor
from triune.engine.weights.tokenizer.template import ChatTemplate
from triune.engine.weights.tokenizer.tokenizer import Tokenizer


class Checkpoint(Protocol):
    """An opened checkpoint. Its files are mapped into memory, and tensors are read on demand. Any thread may use it."""

    @property
    def config(self) -> ModelConfig:
        """The architecture and its sizes."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """The names of the tensors, in Hugging Face's form: `model.layers.0.self_attn.q_proj.weight`."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it. Raises the errors of `tensor`."""
        ...

    def tensor(self, name: str) -> Tensor:
        """Read a tensor, again at each call. Matrices are [out, in], even if the file has them transposed.

        Raises:
            NotFoundError: there is no such tensor.
            InvalidArgumentError: the bytes in the file are not a valid tensor of its form.
        """
        ...

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, built at each call.

        Raises:
            NotFoundError: the checkpoint has no tokenizer.
            UnsupportedError: the tokenizer is of a kind that is not known here.
            InvalidArgumentError: the tokenizer is broken, or gives ids that the embedding has no rows for.
        """
        ...

    @property
    def chat_template(self) -> ChatTemplate | None:
        """How the model expects a conversation to be written; None if the files have no template. It is compiled at
        each access.

        Raises:
            InvalidArgumentError: the text is not a valid template.
        """
        ...
