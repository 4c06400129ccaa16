"""Read the files beside an exported decoder: its config, tokenizer and generation settings."""

from dataclasses import dataclass
from pathlib import Path

from triune.core.errors import NotFoundError
from triune.engine.weights.config import SpecialTokens
from triune.engine.weights.fields import Fields
from triune.engine.weights.huggingface.config import read_tokens
from triune.engine.weights.huggingface.files import read_json

_CONTEXTS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """The settings that serving an exported decoder needs besides its graph.

    Attributes:
        tokens: the special tokens bos, eos and pad.
        vocab_size: the number of logits of a token.
        context_tokens: the longest context that the decoder was exported for, in tokens.
        head_size: the size of a head; 0 if the files do not state it.
    """

    tokens: SpecialTokens
    vocab_size: int
    context_tokens: int
    head_size: int


def read_export_settings(folder: Path) -> ExportSettings:
    """Read genai_config.json, which onnxruntime-genai writes, or config.json.

    Raises:
        NotFoundError: the folder has neither file.
        InvalidArgumentError: a setting is missing or impossible.
    """
    values = read_json(folder / "genai_config.json")
    if values is not None:
        where = f"{folder.name}/genai_config.json"
        fields = Fields(values, where).inner("model") or Fields({}, f"{where}: model")
        context = fields.whole("context_length")
        decoder = fields.inner("decoder")
    else:
        values = read_json(folder / "config.json")
        if values is None:
            raise NotFoundError(f"{folder}: there is neither genai_config.json nor config.json in it")
        fields = Fields(values, f"{folder.name}/config.json")
        fields = fields.inner("text_config") or fields
        named = next((name for name in _CONTEXTS if name in fields), _CONTEXTS[0])
        context, decoder = fields.whole(named), None
    size = 0 if decoder is None else decoder.whole("head_size", 0)
    return ExportSettings(read_tokens(folder, fields), fields.whole("vocab_size"), context, size)
