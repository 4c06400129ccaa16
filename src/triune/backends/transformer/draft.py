"""Draft models: small models that propose tokens for a large model (speculative decoding)."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from triune.backends.transformer.checkpoint import DecoderFiles, open_decoder_files
from triune.config.configure import Source
from triune.config.exports import ONNX_FILENAME, is_exported_decoder
from triune.config.layout import inside, is_version
from triune.config.links import require_checkpoint_near
from triune.config.transformer import GGUF_FILENAME, TransformerOptions
from triune.core.decoder import DecoderExecutable
from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.core.printable import printable
from triune.core.units import Unit
from triune.engine.weights.tokenizer.tokenizer import Tokenizer
from triune.runtimes.decoders import LoadDecoder


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft model that is compiled.

    Attributes:
        name: the draft model's name in the config.
        decoder: the decoder with its cache.
        context_tokens: the most tokens of a sequence for which it proposes tokens.
    """

    name: str
    decoder: DecoderExecutable
    context_tokens: int

    def block_bytes(self, model: DecoderExecutable) -> int:
        """The memory of the draft model, in bytes, for the tokens of one block of the main model."""
        return -(-model.block_size * self.decoder.block_bytes // self.decoder.block_size)

    def allocate(self, model: DecoderExecutable) -> None:
        """Allocate a cache for as many tokens as the large model's cache. Raises NoMemoryError."""
        self.decoder.allocate(-(-model.num_blocks * model.block_size // self.decoder.block_size))


def open_draft(
    options: TransformerOptions, source: Source, vocab_size: int, tokenizer: Tokenizer, given: Path | None = None
) -> DecoderFiles | None:
    """Open the draft model that the config of a large model names; None if it names none. Both models must have the
    same vocabulary.

    Args:
        options: the config's parameters.
        source: the large model.
        vocab_size: the number of rows of the large model's embedding.
        tokenizer: the large model's tokenizer.
        given: the path of the checkpoint, if the config has only the model's name.

    Raises:
        NotFoundError: there is no such checkpoint.
        InvalidArgumentError: the draft model has another vocabulary. The errors of `open_decoder_files` are raised too.
    """
    name = options.draft_model
    if name is None:
        return None
    path, shown = given or _path_of(name, source), printable(name[:128])
    with _named(shown):
        if given is None:
            require_checkpoint_near(path, source.folder)
        files = open_decoder_files(path)
    if files.start_token is not None:
        raise UnsupportedError(
            f"the draft model '{shown}' reads prompts with an encoder, so that it guesses for no other model: name one "
            "without"
        )
    if files.vocab_size != vocab_size:
        raise InvalidArgumentError(
            f"the draft model '{shown}' has a vocabulary of {files.vocab_size} tokens, and model '{source.name}' has "
            f"one of {vocab_size}: name a draft model with the same tokenizer"
        )
    pairs = zip(files.tokenizer().token_bytes, tokenizer.token_bytes, strict=False)
    other = next((token for token, (one, another) in enumerate(pairs) if one != another), None)
    if other is not None:
        raise InvalidArgumentError(
            f"the draft model '{shown}' and model '{source.name}' both have {vocab_size} tokens, and token {other} "
            "differs: name a draft model with the same tokenizer"
        )
    return files


def load_draft(
    files: DecoderFiles,
    load: LoadDecoder,
    options: TransformerOptions,
    *,
    unit: Unit,
    is_alone: bool,
    context_tokens: int,
    num_threads: int,
) -> Draft:
    """Compile a draft model, with a cache of one block.

    Args:
        files: the draft model.
        load: the runtime's function that compiles decoders.
        options: the options of the main model.
        unit: the unit to run on.
        is_alone: whether the main model runs on another unit. Then precision and type of the cache are the runtime's
            defaults, otherwise those of the main model.
        context_tokens: the most tokens of a sequence.
        num_threads: the number of CPU threads in a step.
    """
    context_tokens = min(context_tokens, files.context_tokens)
    with _named(printable((options.draft_model or "")[:128])):
        graph = files.write(context_tokens, ())
    decoder = load(
        graph,
        unit=unit,
        num_threads=num_threads,
        num_blocks=1,
        precision=None if is_alone else options.precision,
        cache_type=None if is_alone else options.cache_type,
    )
    return Draft(options.draft_model or "", decoder, context_tokens)


@contextlib.contextmanager
def _named(shown: str) -> Generator[None]:
    """Add the draft model's name to errors about its files, which would otherwise seem to be about the large model."""
    try:
        yield
    except TriuneError as error:
        for kind in (NotFoundError, UnsupportedError, InvalidArgumentError):
            if isinstance(error, kind):
                raise kind(f"the draft model '{shown}' cannot be loaded: {error}") from error
        raise


def _path_of(name: str, source: Source) -> Path:
    path = inside(source.folder, name, "parameter 'draft_model'")
    if path.exists():
        return _checkpoint_in(path)
    other = source.folder.parent / name
    if "/" not in name and other.is_dir():
        versions = [each for each in other.iterdir() if each.is_dir() and is_version(each.name)]
        if versions:
            return _checkpoint_in(max(versions, key=lambda each: int(each.name)))
    raise NotFoundError(
        f"parameter 'draft_model' of model '{source.name}' is '{printable(name[:128])}': that is no checkpoint in its "
        "folder, and no model beside it"
    )


def _checkpoint_in(path: Path) -> Path:
    """The checkpoint file in a folder, or the folder itself if the folder is the checkpoint."""
    if (path / GGUF_FILENAME).exists():
        return path / GGUF_FILENAME
    exported = path / ONNX_FILENAME
    is_alone = exported.is_file() and next(path.glob("*.safetensors"), None) is None
    return exported if is_alone or is_exported_decoder(path) else path
