"""A directory in Hugging Face's form as a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.engine.weights.agree import require_agreement
from triune.engine.weights.config import BertConfig, LlamaConfig, ModelConfig, T5Config
from triune.engine.weights.config.shapes import tensor_shapes
from triune.engine.weights.huggingface.config import read_config
from triune.engine.weights.huggingface.names import canonical, is_of_pictures, is_transposed, parts
from triune.engine.weights.huggingface.packed import Packing, packed_shape, read_packed, read_packing
from triune.engine.weights.huggingface.store import Store
from triune.engine.weights.huggingface.tokenizer import read_chat_template, read_tokenizer
from triune.engine.weights.pack import Inexact
from triune.engine.weights.tensors import DenseTensor, PackedTensor, Tensor
from triune.engine.weights.tokenizer.template import ChatTemplate
from triune.engine.weights.tokenizer.tokenizer import Tokenizer

_DENSE: Final = frozenset({"F32", "F16", "BF16"})
_BESIDE: Final = (".qzeros", ".scales", ".g_idx", ".biases")
"""The suffixes of the tensors that belong to a packed weight, besides its codes."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a tensor of the graph is in the files.

    Attributes:
        name: the tensor's name in the files; for a packed weight, the name of its module.
        is_packed: whether the weight is packed in the files.
        rows: which rows of the files' tensor are the graph's tensor; None for all rows.
        shape: the shape in the graph: [out, in] for a matrix.
        is_transposed: whether the matrix is [in, out] in the files.
    """

    name: str
    is_packed: bool
    rows: slice | None
    shape: tuple[int, ...]
    is_transposed: bool = False


class HuggingFaceCheckpoint:
    """A directory in Hugging Face's form as a `Checkpoint`."""

    def __init__(self, folder: Path, inexact: Inexact) -> None:
        """Open the directory. Raises the errors of `open_checkpoint`."""
        self._folder = folder
        self._inexact: Inexact = inexact
        self._config, settings = read_config(folder)
        self._packing = read_packing(settings, f"{folder.name}/config.json")
        self._store = Store(folder)
        if isinstance(self._config, T5Config) and "lm_head.weight" in self._store.shapes:
            # The files have a separate `lm_head`, so the embeddings are not tied, although transformers 5 may write
            # that they are.
            self._config = replace(self._config, tie_word_embeddings=False)
        if isinstance(self._config, BertConfig):
            self._config = _with_heads(self._config, self._store)
        self._sources = _sources(self._store, self._config, self._packing, folder.name)
        _drop_idle_biases(self._sources, self._store, self._config)
        require_agreement(self._config, {name: each.shape for name, each in self._sources.items()}, folder.name)

    @property
    def config(self) -> ModelConfig:
        """Implements `Checkpoint.config`."""
        return self._config

    @property
    def names(self) -> Sequence[str]:
        """Implements `Checkpoint.names`."""
        return list(self._sources)

    @property
    def names_of_pictures(self) -> Sequence[str]:
        """The names, in the files, of the tensors of the part for pictures, which no graph reads."""
        return [name for name in self._store.shapes if is_of_pictures(name)]

    def shape(self, name: str) -> tuple[int, ...]:
        """Implements `Checkpoint.shape`."""
        return self._source(name).shape

    def tensor(self, name: str) -> Tensor:
        """Implements `Checkpoint.tensor`."""
        source = self._source(name)
        if source.is_packed:
            assert self._packing is not None
            whole = read_packed(self._store, source.name, self._packing, self._inexact)
            return whole if source.rows is None else _rows_of(whole, source.rows)
        values = self._store.read(source.name, source.rows or slice(None))
        return DenseTensor(values.T if source.is_transposed else values, self._store.dtypes[source.name])

    def tokenizer(self) -> Tokenizer:
        """Implements `Checkpoint.tokenizer`."""
        return read_tokenizer(self._folder, self._config.tokens, self._config.vocab_size)

    @property
    def chat_template(self) -> ChatTemplate | None:
        """Implements `Checkpoint.chat_template`."""
        return read_chat_template(self._folder)

    def _source(self, name: str) -> _Source:
        try:
            return self._sources[name]
        except KeyError:
            raise NotFoundError(f"{self._folder.name} has no tensor {name!r}") from None


def _sources(store: Store, config: ModelConfig, packing: Packing | None, where: str) -> dict[str, _Source]:
    sources: dict[str, _Source] = {}
    for stored in store.shapes:
        found = _source(store, stored, config, packing, where)
        if found is None:
            continue
        name, source = found
        # Skip `lm_head` if the config says that the embeddings are tied: some files have a copy of the embedding under
        # this name.
        if name == "lm_head.weight" and config_is_tied(config):
            continue
        joined = parts(name, config)
        for part, rows in joined or [(name, None)]:
            if part in sources:
                raise InvalidArgumentError(f"{where}: {sources[part].name!r} and {stored!r} are both {part!r}")
            shape = source.shape
            if rows is not None:
                if rows.stop > shape[0]:
                    raise InvalidArgumentError(
                        f"{where}: {stored!r} has {shape[0]} rows; by the config at least {rows.stop}"
                    )
                shape = (rows.stop - rows.start, *shape[1:])
            sources[part] = _Source(source.name, source.is_packed, rows, shape, source.is_transposed)
    return sources


def _drop_idle_biases(sources: dict[str, _Source], store: Store, config: ModelConfig) -> None:
    """Remove biases from `sources` that are all 0 and that the architecture does not have. GPTQ's tools write them."""
    if not isinstance(config, LlamaConfig):
        return
    expected = tensor_shapes(config)
    for name in [name for name in sources if name.endswith(".bias") and name not in expected]:
        if not store.read(sources[name].name).any():
            del sources[name]


def _with_heads(config: BertConfig, store: Store) -> BertConfig:
    """The config, with the pooler and the head that the tensors show. A head that classifies texts reads the pooler; a
    checkpoint with a head that classifies tokens has no pooler.
    """
    has_pooler = any(name.endswith("pooler.dense.weight") for name in store.shapes)
    if "classifier.weight" not in store.shapes:
        return replace(config, has_pooler=has_pooler, head=None, labels=())
    return replace(config, has_pooler=has_pooler, head="sequence" if has_pooler else "token")


def config_is_tied(config: ModelConfig) -> bool:
    """Whether the output matrix is the embedding matrix."""
    return bool(getattr(config, "tie_word_embeddings", False))


def _source(
    store: Store, stored: str, config: ModelConfig, packing: Packing | None, where: str
) -> tuple[str, _Source] | None:
    """The graph's name for the tensor `stored` of the files, and its source. None if the graph does not read the
    tensor, or if the tensor is only a part of a packed weight, such as its scales.
    """
    if packing is not None:
        module = stored.rpartition(".")[0]
        is_module = f"{module}{packing.suffix}" in store.shapes and f"{module}.scales" in store.shapes
        if is_module and stored.endswith(_BESIDE):
            return None
        if is_module and stored.endswith(packing.suffix):
            name = canonical(f"{module}.weight", config)
            return None if name is None else (name, _Source(module, True, None, packed_shape(store, module, packing)))
    name = canonical(stored, config)
    if name is None:
        return None
    dtype, shape = store.dtypes[stored], store.shapes[stored]
    if dtype not in _DENSE:
        raise UnsupportedError(
            f"{where}: {stored!r} is {dtype}; known are {', '.join(sorted(_DENSE))}, and the packed layouts of AWQ, "
            "GPTQ and MLX where config.json says so"
        )
    transposed = is_transposed(name, config)
    return name, _Source(stored, False, None, shape[::-1] if transposed else shape, transposed)


def _rows_of(whole: Tensor, rows: slice) -> Tensor:
    if isinstance(whole, DenseTensor):
        return DenseTensor(whole.values[rows], whole.form)
    zero_points, offsets = (None if each is None else each[rows] for each in (whole.zero_points, whole.offsets))
    codes, scales = whole.codes[rows], whole.scales[rows]
    return PackedTensor(codes, whole.bits, scales, zero_points, whole.block_size, whole.form, whole.regrouped, offsets)
