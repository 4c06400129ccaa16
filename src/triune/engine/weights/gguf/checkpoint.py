"""A GGUF file as a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from triune.core.errors import NotFoundError
from triune.engine.weights.agree import require_agreement
from triune.engine.weights.config import ModelConfig
from triune.engine.weights.gguf.config import read_config
from triune.engine.weights.gguf.file import open_gguf
from triune.engine.weights.gguf.names import Source, name_tensors
from triune.engine.weights.gguf.read import read_tensor
from triune.engine.weights.gguf.vocabulary import build_tokenizer, special_texts
from triune.engine.weights.pack import Inexact
from triune.engine.weights.tensors import Tensor
from triune.engine.weights.tokenizer.template import ChatTemplate
from triune.engine.weights.tokenizer.tokenizer import Tokenizer


class GgufCheckpoint:
    """A GGUF file as a `Checkpoint`."""

    def __init__(self, path: Path, inexact: Inexact) -> None:
        """Open the file. Raises the errors of `open_checkpoint`."""
        self._file = open_gguf(path)
        architecture, self._config = read_config(self._file)
        self._sources = name_tensors(self._file, architecture, self._config)
        self._inexact: Inexact = inexact
        require_agreement(self._config, {name: self.shape(name) for name in self._sources}, path.name)

    @property
    def config(self) -> ModelConfig:
        """Implements `Checkpoint.config`."""
        return self._config

    @property
    def names(self) -> Sequence[str]:
        """Implements `Checkpoint.names`."""
        return list(self._sources)

    def shape(self, name: str) -> tuple[int, ...]:
        """Implements `Checkpoint.shape`."""
        source = self._source(name)
        rows, *others = self._file.places[source.name].shape
        return (_num_rows(source, rows), *others)

    def tensor(self, name: str) -> Tensor:
        """Implements `Checkpoint.tensor`."""
        source = self._source(name)
        return read_tensor(self._file, source.name, self._inexact, source.rows)

    def tokenizer(self) -> Tokenizer:
        """Implements `Checkpoint.tokenizer`."""
        backend = build_tokenizer(self._file.metadata, self._file.name)
        return Tokenizer(backend, self._config.tokens, self._config.vocab_size, self._file.name)

    @property
    def chat_template(self) -> ChatTemplate | None:
        """Implements `Checkpoint.chat_template`."""
        source = self._file.metadata.get("tokenizer.chat_template")
        if not isinstance(source, str):
            return None
        return ChatTemplate(source, special_texts(self._file.metadata))

    def _source(self, name: str) -> Source:
        try:
            return self._sources[name]
        except KeyError:
            raise NotFoundError(f"{self._file.name} has no tensor {name!r}") from None


def _num_rows(source: Source, rows: int) -> int:
    if isinstance(source.rows, slice):
        return len(range(*source.rows.indices(rows)))
    return len(source.rows)
