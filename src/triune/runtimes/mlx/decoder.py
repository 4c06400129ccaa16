"""Decoders on MLX, over paged caches that are written in place."""

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.core.datatypes import Array
from triune.core.decoder import (
    CacheType,
    DecoderPrecision,
    DecoderStep,
    blocks_of,
    checked_blocks,
    checked_tokens,
    tokens_of,
)
from triune.core.errors import InternalError, UnsupportedError, no_memory
from triune.core.units import Unit
from triune.graph.held import HeldModel
from triune.graph.paged_attention import OP_TYPE, cache_heads
from triune.metal.library import Value, dtype_of, exclusive, from_numpy, is_gpu, mx, to_numpy
from triune.metal.paged_attention import CacheForm, Layout, PagedAttention, coarse, layout_of
from triune.metal.program import Program
from triune.runtimes.failures import reason_of

_KINDS: Mapping[DecoderPrecision, Any] = {"fp32": mx.float32, "bf16": mx.bfloat16, "fp16": mx.float16}

_MOST_COMPILED = 64
"""The most shapes of steps for which compiled functions are kept."""


class MlxDecoder:
    """A `core.decoder.DecoderExecutable`, in fp32, bf16 or fp16. Weights stay packed where MLX has their groups."""

    unit = Unit.GPU

    def __init__(
        self,
        model: HeldModel,
        *,
        unit: Unit = Unit.GPU,
        num_threads: int = 1,
        num_blocks: int,
        block_size: int = 16,
        precision: DecoderPrecision | None = None,
        cache_type: CacheType | None = None,
        compiles: bool | None = None,
    ) -> None:
        """Read a graph in the paged form (`engine.models.forms`).

        Args:
            model: the graph; it is not needed afterwards.
            unit: `gpu`.
            num_threads: has no effect.
            num_blocks: the blocks of the cache.
            block_size: the tokens of a block.
            precision: of the computation. None takes bf16 on a GPU; and fp32 on a CPU, where 16 bits are slower.
            cache_type: of keys and values; None takes the precision.
            compiles: whether MLX compiles the steps; None means on a GPU.

        Raises:
            UnsupportedError: MLX cannot compute an operator of the graph, or the unit is another one.
            NoMemoryError: there is not the memory for the cache.
        """
        del num_threads
        if unit is not Unit.GPU:
            raise UnsupportedError(f"MLX runs decoders on unit 'gpu', not on '{unit.value}'")
        self.precision: DecoderPrecision = precision or ("bf16" if is_gpu() else "fp32")
        kind = cache_type or self.precision
        self.block_size = block_size
        self._form = CacheForm(kind)
        self._attention = PagedAttention(self._form)
        graph = model.model.graph
        heads = cache_heads(graph)
        memory = [each.name for each in graph.input if each.name.startswith("cross_")]
        if memory:
            raise UnsupportedError(f"MLX's decoders read no encoder yet; this one reads {', '.join(memory[:2])}, ...")
        self._has_adapters = any(each.name == "adapters" for each in graph.input)
        self._names = list(heads)
        self._heads = list(heads.values())
        self.cache_form = f"{kind} [{block_size}, heads, size]"
        self._compiles = is_gpu() if compiles is None else compiles
        self._compiled: OrderedDict[tuple[Any, ...], Callable[..., list[Value]]] = OrderedDict()
        self._outputs = ["logits", *(f"{name}.new" for name in self._names)]
        with exclusive():
            self._program = Program(
                graph, float_type=_KINDS[self.precision], read=model.array, more={OP_TYPE: self._attention}
            )
        self.allocate(num_blocks)

    @property
    def block_bytes(self) -> int:
        """See `DecoderExecutable`."""
        return sum(
            self.block_size * heads * (size + self._form.extra) * self._form.kind.size for heads, size in self._heads
        )

    @property
    def num_blocks(self) -> int:
        """See `DecoderExecutable`."""
        return self._num_blocks

    @property
    def num_packed(self) -> int:
        """How many products are computed with packed weights."""
        return self._program.num_packed

    def allocate(self, num_blocks: int) -> None:
        """See `DecoderExecutable`. There is one block more, for padding."""
        num_bytes = (num_blocks + 1) * self.block_bytes
        what = f"a cache of {num_blocks} blocks, {num_bytes} bytes"
        if num_bytes > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
            raise no_memory(what, "give the cache fewer blocks")
        self._caches: list[Value] = []
        self._lost = ""
        self._num_blocks = num_blocks
        try:
            with exclusive():
                self._caches = [
                    mx.zeros((num_blocks + 1, self.block_size, heads, size + self._form.extra), dtype=self._form.kind)
                    for heads, size in self._heads
                ]
                mx.eval(self._caches)
        except (MemoryError, RuntimeError) as error:
            raise no_memory(what, "give the cache fewer blocks") from error

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        """See `DecoderExecutable`."""
        step.require_fitting(self.num_blocks, self.block_size)
        if self._lost:
            raise InternalError(f"the cache was lost when an earlier step failed: {self._lost}; allocate it anew")
        layout = layout_of(step, self.block_size, self.num_blocks, coarse if self._compiles else int)
        arrays = self._padded(step, layout)
        try:
            with exclusive():
                values = [from_numpy(each) for each in arrays.values()]
                logits = self._compute(layout, list(arrays), values)
                return to_numpy(logits)[: len(step.logits_indices)]
        except Exception as error:
            # Caches are written in place, so those from before the step are gone.
            self._lost = reason_of(error)
            raise InternalError(f"MLX failed in a step of {len(step.input_ids)} tokens: {self._lost}") from error

    def _padded(self, step: DecoderStep, layout: Layout) -> Mapping[str, Array]:
        """The arrays of a step and its layout by name, padded."""
        num_tokens = len(layout.arrays["slots"])
        count = len(step.logits_indices)
        wanted = coarse(count) if self._compiles else count
        return {
            "input_ids": _filled(step.input_ids, num_tokens),
            "position_ids": _filled(step.position_ids, num_tokens),
            "logits_indices": _filled(step.logits_indices, wanted),
            **({"adapters": _filled(step.arrays()["adapters"], num_tokens)} if self._has_adapters else {}),
            **layout.arrays,
        }

    def _compute(self, layout: Layout, names: list[str], values: list[Value]) -> Value:
        """The logits of a step, whose keys and values are in the caches then."""

        def compute(*given: Value) -> list[Value]:
            self._attention.begin(layout)
            found, _ = self._program(
                dict(zip([*names, *self._names], given, strict=True)), self._outputs, is_compiling=self._compiles
            )
            return [found[0].astype(mx.float32), *found[1:]]

        function = compute
        if self._compiles:
            key = layout.groups, layout.is_in_order, tuple(value.shape for value in values)
            function = self._compiled.pop(key, None) or mx.compile(compute)
            self._compiled[key] = function
            if len(self._compiled) > _MOST_COMPILED:
                self._compiled.popitem(last=False)
        # Nothing else may hold the caches while MLX computes: it would copy them.
        logits, *self._caches = function(*values, *self._caches)
        mx.eval(logits, *self._caches)
        return logits

    def read_blocks(self, indices: Sequence[int]) -> Sequence[Array]:
        """See `DecoderExecutable`."""
        with exclusive():
            return [to_numpy(mx.take(cache, _indices(indices), 0)) for cache in self._caches]

    def write_blocks(self, indices: Sequence[int], blocks: Sequence[Array]) -> None:
        """See `DecoderExecutable`."""
        shapes = [np.broadcast_to(np.zeros((), dtype_of(cache)), cache.shape) for cache in self._caches]
        self._write(indices, [from_numpy(each) for each in checked_blocks(indices, blocks, shapes)])

    def read_tokens(self, blocks: Sequence[int], num_tokens: int) -> Sequence[NDArray[np.float32]]:
        """See `DecoderExecutable`."""
        with exclusive():
            found = [
                to_numpy(self._form.numbers(mx.take(cache, _indices(blocks), 0), mx.float32)) for cache in self._caches
            ]
        return [tokens_of(each.swapaxes(1, 2), num_tokens) for each in found]

    def write_tokens(self, blocks: Sequence[int], tokens: Sequence[NDArray[np.float32]]) -> None:
        """See `DecoderExecutable`."""
        filled = [
            blocks_of(each, len(blocks), self.block_size).swapaxes(1, 2) for each in checked_tokens(tokens, self._heads)
        ]
        with exclusive():
            kept = [self._form.kept(from_numpy(each)) for each in filled]
        self._write(blocks, kept)

    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """See `DecoderExecutable`."""
        with exclusive():
            copies = [mx.take(cache, _indices(sources), 0) for cache in self._caches]
            mx.eval(copies)
        self._write(targets, copies)

    def close(self) -> None:
        """See `DecoderExecutable`."""
        del self._program, self._caches, self._compiled

    def _write(self, indices: Sequence[int], blocks: Sequence[Value]) -> None:
        """Write blocks in place."""
        if not len(indices):
            return
        with exclusive():
            for cache, new in zip(self._caches, blocks, strict=True):
                cache[_indices(indices)] = new
            mx.eval(self._caches)


def _filled(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The array with zeros at its end, up to `size` elements."""
    return np.concatenate([array, np.zeros(size - len(array), array.dtype)])


def _indices(indices: Sequence[int]) -> Value:
    return from_numpy(np.asarray(indices, np.int32))
