"""Runs decoders in ONNX's reference evaluator, which is slow but simple, to check other runtimes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from triune.core.datatypes import Array
from triune.core.decoder import DecoderStep, LogitsOnHost
from triune.core.errors import InvalidArgumentError
from triune.core.kv_blocks import blocks_of, checked_blocks, checked_tokens, tokens_of
from triune.core.step_rows import rows_of
from triune.core.units import Unit
from triune.graph.held import HeldModel
from triune.graph.paged_attention import PagedAttention, cache_heads


class ReferenceDecoder(LogitsOnHost):
    """A `core.decoder.DecoderExecutable` in fp32. Its cache has the shape that `triune::PagedAttention` requires."""

    unit = Unit.CPU
    precision = "fp32"

    def __init__(self, model: HeldModel, *, num_blocks: int, block_size: int = 16) -> None:
        """Read a graph in the paged form (`engine.models.forms`). Raises UnsupportedError for one over 2 GiB."""
        whole = model.whole()
        self.block_size = block_size
        self.cache_form = f"fp32 [heads, {block_size}, size]"
        heads = cache_heads(whole.graph)
        self._names = list(heads)
        self._step_names = {each.name for each in whole.graph.input} - heads.keys()
        self._shapes = [(count, block_size, size) for count, size in heads.values()]
        self._evaluator: Any = ReferenceEvaluator(whole, new_ops=[PagedAttention])
        self.allocate(num_blocks)

    @property
    def block_bytes(self) -> int:
        """Implements `DecoderExecutable.block_bytes`."""
        return sum(int(np.prod(shape)) for shape in self._shapes) * 4

    @property
    def num_blocks(self) -> int:
        """Implements `DecoderExecutable.num_blocks`."""
        return len(self._caches[0])

    def allocate(self, num_blocks: int) -> None:
        """Implements `DecoderExecutable.allocate`."""
        self._caches: list[Array] = [np.zeros((num_blocks, *shape), np.float32) for shape in self._shapes]

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        """Implements `DecoderExecutable.run`."""
        step.require_fitting(self.num_blocks, self.block_size)
        arrays = {**step.arrays(), **rows_of(step)}
        if missing := self._step_names - arrays.keys():
            raise InvalidArgumentError(f"the model reads {', '.join(sorted(missing))}, which the step's memory lacks")
        feed = arrays | dict(zip(self._names, self._caches, strict=True))
        logits, *self._caches = self._evaluator.run(["logits", *(f"{name}.new" for name in self._names)], feed)
        return logits

    def read_blocks(self, indices: Sequence[int]) -> Sequence[Array]:
        """Implements `DecoderExecutable.read_blocks`."""
        return [cache[list(indices)] for cache in self._caches]

    def write_blocks(self, indices: Sequence[int], blocks: Sequence[Array]) -> None:
        """Implements `DecoderExecutable.write_blocks`."""
        for cache, new in zip(self._caches, checked_blocks(indices, blocks, self._caches), strict=True):
            cache[list(indices)] = new

    def read_tokens(self, blocks: Sequence[int], num_tokens: int) -> Sequence[NDArray[np.float32]]:
        """Implements `DecoderExecutable.read_tokens`."""
        return [tokens_of(cache[list(blocks)], num_tokens) for cache in self._caches]

    def write_tokens(self, blocks: Sequence[int], tokens: Sequence[NDArray[np.float32]]) -> None:
        """Implements `DecoderExecutable.write_tokens`."""
        heads = [(heads, size) for heads, _, size in self._shapes]
        for cache, new in zip(self._caches, checked_tokens(tokens, heads), strict=True):
            cache[list(blocks)] = blocks_of(new, len(blocks), self.block_size)

    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Implements `DecoderExecutable.copy_blocks`."""
        for cache in self._caches:
            cache[list(targets)] = cache[list(sources)]

    def close(self) -> None:
        """Implements `DecoderExecutable.close`."""
        vars(self).pop("_evaluator", None)
        self._caches.clear()
