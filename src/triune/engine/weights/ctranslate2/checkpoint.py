"""A directory of CTranslate2's as a checkpoint: Whisper in fp16 or fp32."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

import numpy as np

from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.engine.weights.agree import require_agreement
from triune.engine.weights.config import ModelConfig, SpecialTokens
from triune.engine.weights.ctranslate2.file import CTranslate2File
from triune.engine.weights.ctranslate2.whisper import names_of, read_config, require_no_others
from triune.engine.weights.fields import Fields
from triune.engine.weights.huggingface.files import read_json
from triune.engine.weights.huggingface.tokenizer import read_tokenizer
from triune.engine.weights.tensors import DenseTensor
from triune.engine.weights.tokenizer.template import ChatTemplate
from triune.engine.weights.tokenizer.tokenizer import Tokenizer

FILENAME: Final = "model.bin"
_FORMS: Final = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_IGNORED: Final = frozenset({"lang_ids"})
"""Settings of config.json that are not read: the languages are taken from the tokenizer."""


class CTranslate2Checkpoint:
    """A CTranslate2 directory as a `Checkpoint`."""

    def __init__(self, folder: Path) -> None:
        """Open the directory. Raises the errors of `open_checkpoint`."""
        self._folder = folder
        self._file = CTranslate2File(folder / FILENAME)
        fields = Fields(read_json(folder / "config.json") or {}, folder.name)
        self._config = read_config(self._file, fields, _tokens(folder))
        fields.refuse_unread(_IGNORED)
        self._sources = {name: (variable, rows) for name, variable, rows in names_of(self._config)}
        variables = self._file.variables
        shapes = {name: self.shape(name) for name, (variable, _) in self._sources.items() if variable in variables}
        require_agreement(self._config, shapes, folder.name)
        used = {variable for variable, _ in self._sources.values()}
        require_no_others(self._file, used, folder.name)
        for variable in used:
            if variables[variable].dtype.name not in _FORMS:
                raise UnsupportedError(
                    f"{folder.name}: {variable!r} is {variables[variable].dtype}; known are fp32, fp16, bf16"
                )

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
        variable, rows = self._source(name)
        shape = self._file.variables[variable].shape
        if rows is None:
            return shape
        # The rows are counted, since in a broken file the slice `rows` may extend beyond the variable's last row.
        return (len(range(*rows.indices(shape[0]))) if shape else 0, *shape[1:])

    def tensor(self, name: str) -> DenseTensor:
        """Implements `Checkpoint.tensor`."""
        variable, rows = self._source(name)
        values = self._file.read(variable)
        if not np.isfinite(values).all():
            raise InvalidArgumentError(f"{self._folder.name}: {variable!r} is not finite: the file is damaged")
        return DenseTensor(values if rows is None else values[rows], _FORMS[values.dtype.name])

    def tokenizer(self) -> Tokenizer:
        """Implements `Checkpoint.tokenizer`."""
        return read_tokenizer(self._folder, self._config.tokens, self._config.vocab_size)

    @property
    def chat_template(self) -> ChatTemplate | None:
        """None: Whisper has no chat template."""
        return None

    def _source(self, name: str) -> tuple[str, slice | None]:
        try:
            return self._sources[name]
        except KeyError:
            raise NotFoundError(f"{self._folder.name} has no tensor {name!r}") from None


def _tokens(folder: Path) -> SpecialTokens:
    """The special tokens. model.bin does not name them, so they are found by their texts in tokenizer.json; without
    that file there are none.
    """
    added = (read_json(folder / "tokenizer.json") or {}).get("added_tokens")
    ids: dict[str, object] = {}
    for each in cast("list[object]", added) if isinstance(added, list) else ():
        if isinstance(each, dict):
            entry = cast("dict[str, object]", each)
            ids[str(entry.get("content"))] = entry.get("id")
    end, start = (ids.get(text) for text in ("<|endoftext|>", "<|startoftranscript|>"))
    return SpecialTokens(
        eos=(end,) if isinstance(end, int) else (), decoder_start=start if isinstance(start, int) else None
    )
