"""Read the tokenizer and the chat template of a directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import tokenizers

from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.engine.weights.config import SpecialTokens
from triune.engine.weights.huggingface.files import read_json, read_text
from triune.engine.weights.tokenizer.template import ChatTemplate
from triune.engine.weights.tokenizer.tokenizer import Tokenizer

_FILE = "tokenizer.json"
_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


def read_tokenizer(folder: Path, tokens: SpecialTokens, vocab_size: int) -> Tokenizer:
    """The tokenizer in tokenizer.json, for an embedding of `vocab_size` rows.

    Raises:
        NotFoundError: there is no such file.
        InvalidArgumentError: it is broken, or gives ids that the embedding has no rows for.
    """
    text = read_text(folder / _FILE)
    if text is None:
        raise NotFoundError(f"{folder}: there is no {_FILE} in it; save the tokenizer in that form")
    try:
        backend = tokenizers.Tokenizer.from_str(text)
    # BaseException is caught because the library raises, for panics, a class that is not derived from `Exception`.
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise InvalidArgumentError(f"{folder.name}/{_FILE}: it is no tokenizer: {error}") from error
    # Turn off the truncation and padding that the file may state, which were used in training.
    backend.no_padding()
    backend.no_truncation()
    return Tokenizer(backend, tokens, vocab_size, folder.name)


def read_chat_template(folder: Path) -> ChatTemplate | None:
    """The chat template, in a file of its own or in tokenizer_config.json; None if there is none.

    Raises:
        InvalidArgumentError: the text is not a valid template.
    """
    settings = read_json(folder / "tokenizer_config.json") or {}
    source = read_text(folder / "chat_template.jinja")
    if source is None:
        source = _source((read_json(folder / "chat_template.json") or {}).get("chat_template"))
    if source is None:
        source = _source(settings.get("chat_template"))
    return None if source is None else ChatTemplate(source, _texts(settings))


def _source(given: object) -> str | None:
    """The text of a chat template. `given` is the setting: the text itself, or a list of named templates, of which the
    one called "default" is taken. None if there is no such text.
    """
    if isinstance(given, list):
        entries = [cast("dict[str, object]", each) for each in cast("list[object]", given) if isinstance(each, dict)]
        given = next((each.get("template") for each in entries if each.get("name") == "default"), None)
    return given if isinstance(given, str) else None


def _texts(settings: Mapping[str, object]) -> dict[str, str]:
    """The texts of the special tokens that templates may use. The file has each as a text, or as an object with the
    text.
    """
    texts: dict[str, str] = {}
    for name in _TOKENS:
        given = settings.get(name)
        content = cast("dict[str, object]", given).get("content") if isinstance(given, dict) else given
        if isinstance(content, str):
            texts[name] = content
    return texts
