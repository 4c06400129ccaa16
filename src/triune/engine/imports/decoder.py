"""An exported decoder, with its config and tokenizer."""

from pathlib import Path

from triune.core.errors import InvalidArgumentError
from triune.engine.imports.export import import_decoder
from triune.engine.imports.settings import read_export_settings
from triune.engine.weights.huggingface.tokenizer import read_chat_template, read_tokenizer
from triune.engine.weights.tokenizer.template import ChatTemplate
from triune.engine.weights.tokenizer.tokenizer import Tokenizer
from triune.graph.held import HeldModel


class ExportedDecoder:
    """An ONNX file with caches, its config and its tokenizer.

    Attributes:
        vocab_size: the number of logits of a token.
        context_tokens: the longest context, in tokens, that the model was made for.
    """

    def __init__(self, path: Path) -> None:
        """Read the files beside the ONNX file `path`. Raises the errors of `read_export_settings`."""
        self._path = path
        settings = read_export_settings(path.parent)
        self._tokens = settings.tokens
        self._head_size = settings.head_size
        self.vocab_size = settings.vocab_size
        self.context_tokens = settings.context_tokens

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, built at each call. Raises the errors of `read_tokenizer`."""
        return read_tokenizer(self._path.parent, self._tokens, self.vocab_size)

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The chat template; None if there is none. Raises InvalidArgumentError if it is not valid."""
        return read_chat_template(self._path.parent)

    def paged(self, num_positions: int) -> HeldModel:
        """The graph in the paged form, for contexts of up to `num_positions` tokens. Raises the errors of
        `import_decoder`, and InvalidArgumentError if its logits have another size than the config says.
        """
        model = import_decoder(self._path, num_positions, self._head_size)
        logits = next(each for each in model.model.graph.output if each.name == "logits")
        size = logits.type.tensor_type.shape.dim[-1].dim_value
        if size != self.vocab_size:
            raise InvalidArgumentError(
                f"{self._path.name} gives {size or 'an unknown number of'} logits; by its config the vocabulary has "
                f"{self.vocab_size} tokens"
            )
        return model
