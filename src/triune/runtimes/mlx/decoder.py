"""Decoders on MLX, over paged caches that are written in place."""

import contextlib
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.core.datatypes import Array
from triune.core.decoder import CacheType, DecoderPrecision, DecoderStep
from triune.core.errors import InternalError, UnsupportedError, no_memory
from triune.core.kv_blocks import blocks_of, checked_blocks, checked_tokens, tokens_of
from triune.core.pending_tokens import PendingTokens
from triune.core.step_rows import ROW_NAMES, rows_of
from triune.core.units import Unit
from triune.graph.held import HeldModel
from triune.graph.paged_attention import OP_TYPE, cache_heads, memory_widths
from triune.metal.context import Context, Lowering
from triune.metal.elementwise import swiglu
from triune.metal.fusion import ADD_NORM, ROTARY, SWIGLU, fuse
from triune.metal.kernels.add_norm import add_norm
from triune.metal.library import Value, dtype_of, exclusive, from_numpy, is_gpu, mx, start_kernels, to_numpy
from triune.metal.nvidia import downloaded
from triune.metal.paged_attention import CacheForm, PagedAttention
from triune.metal.paged_layout import Layout, layout_of
from triune.metal.program import Program
from triune.runtimes.failures import reason_of
from triune.runtimes.mlx.compiled_steps import CompiledSteps, can_compile
from triune.runtimes.mlx.encoder_memory import EncoderMemory
from triune.runtimes.mlx.step_inputs import Ids, uploaded
from triune.runtimes.mlx.tokens import MlxTokens, most_probable, with_tokens

_KINDS: Mapping[DecoderPrecision, Any] = {"fp32": mx.float32, "bf16": mx.bfloat16, "fp16": mx.float16}


class MlxDecoder:
    """A `core.decoder.DecoderExecutable`, in fp32, bf16 or fp16. Weights stay packed if MLX supports their group size.

    Attributes:
        compiled: computes steps of one token for each sequence, on GPUs of NVIDIA; if None, they are computed like
            other steps.
    """

    unit = Unit.GPU
    can_run_ahead = True

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
        is_reproducible: bool = False,
        has_guesses: bool = False,
    ) -> None:
        """Read a graph in the paged form (`engine.models.forms`).

        Args:
            model: the graph; it is not needed afterwards.
            unit: `gpu`.
            num_threads: has no effect.
            num_blocks: the number of blocks of the cache.
            block_size: the number of tokens in a block.
            precision: the floating-point format of the computation. None means bf16 on a GPU, and fp32 on a CPU, where
                16-bit types are slower.
            cache_type: the type of keys and values; None means the type of the precision.
            is_reproducible: must be False, since the order in which MLX adds numbers depends on the size of the step.
            has_guesses: has no effect: a wrong guess changes no numbers of other tokens in the cache, since floats
                share no scale.

        Raises:
            UnsupportedError: MLX cannot compute an operator of the graph, or the unit is another one.
            NoMemoryError: there is not enough memory for the cache.
        """
        del num_threads, has_guesses
        if unit is not Unit.GPU:
            raise UnsupportedError(f"MLX runs decoders on unit 'gpu', not on '{unit.value}'")
        if is_reproducible:
            raise UnsupportedError(
                "MLX's sums depend on the size of a step, so that no answer is reproducible; name the unit 'cpu', "
                "which OpenVINO computes, or remove the parameter 'reproducible'"
            )
        start_kernels(in_graphs=True)
        self.precision: DecoderPrecision = precision or ("bf16" if is_gpu() else "fp32")
        kind = cache_type or self.precision
        self.block_size = block_size
        self._form = CacheForm(kind)
        self._attention = PagedAttention(self._form, block_size)
        graph = model.model.graph
        heads = cache_heads(graph)
        self._memory = EncoderMemory(memory_widths(graph), _KINDS[self.precision])
        self._row_inputs = [each.name for each in graph.input if each.name in ROW_NAMES]
        self._adapter_inputs = [each.name for each in graph.input if each.name.startswith("adapter")]
        # One cache holds the keys and the values of a layer. It has the name of the graph's cache of keys.
        self._names = list(heads)[::2]
        self._heads = list(heads.values())
        self.cache_form = f"{kind} [heads, {block_size}, size]"
        self._ids = Ids(graph)
        lowerings: Mapping[str, Lowering] = {
            OP_TYPE: self._attention.attention,
            ROTARY: self._attention.rotary_attention,
            SWIGLU: _swiglu,
            ADD_NORM: _add_norm,
        }
        fused = fuse(graph)
        with exclusive():
            self._program = Program(
                fused, float_type=_KINDS[self.precision], read=model.array, more=lowerings, checks=False
            )
        sizes = [size for _, size in self._heads]
        self.compiled: CompiledSteps | None = None
        if can_compile(fused, sizes, are_floats=kind != "int8") and not self._row_inputs:
            self.compiled = CompiledSteps(self._program, self._attention, self._names, self._ids)
        self.allocate(num_blocks)

    @property
    def block_bytes(self) -> int:
        """Implements `DecoderExecutable.block_bytes`."""
        return sum(
            self.block_size * heads * (size + self._form.extra) * self._form.kind.size for heads, size in self._heads
        )

    @property
    def num_blocks(self) -> int:
        """Implements `DecoderExecutable.num_blocks`."""
        return self._num_blocks

    @property
    def num_packed(self) -> int:
        """The number of matrix products that are computed with quantized weights."""
        return self._program.num_packed

    def allocate(self, num_blocks: int) -> None:
        """Implements `DecoderExecutable.allocate`."""
        num_bytes = num_blocks * self.block_bytes
        what = f"a cache of {num_blocks} blocks, {num_bytes} bytes"
        if num_bytes > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
            raise no_memory(what, "give the cache fewer blocks")
        self._caches: list[Value] = []
        self._lost = ""
        self._num_blocks = num_blocks
        try:
            with exclusive():
                self._caches = [
                    mx.zeros((num_blocks * 2 * heads * self.block_size, size + self._form.extra), dtype=self._form.kind)
                    for heads, size in self._heads[::2]
                ]
                mx.eval(self._caches)
        except (MemoryError, RuntimeError) as error:
            raise no_memory(what, "give the cache fewer blocks") from error

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        """Implements `DecoderExecutable.run`."""
        return self._read(self._begin(step, None, _widened))[: len(step.logits_indices)]

    def begin(self, step: DecoderStep, before: PendingTokens | None = None) -> PendingTokens:
        """Implements `DecoderExecutable.begin`. `before` must be the result of this decoder's previous `begin`."""
        assert before is None or isinstance(before, MlxTokens)
        return MlxTokens(self._begin(step, before, most_probable), self._read, len(step.logits_indices))

    def _begin(self, step: DecoderStep, before: MlxTokens | None, finish: Callable[[Value], Value]) -> Value:
        """Start to compute `finish(logits)` for a step in MLX, without waiting for it. The logits may have rows of
        padding at the end.
        """
        step.require_fitting(self.num_blocks, self.block_size)
        self._memory.require(step.memory)
        self._require_cache()
        if self.compiled is not None and self.compiled.fits(step):
            tokens = before.value if before is not None and step.sources is not None else None
            with exclusive(), self._failures(len(step.input_ids)):
                return self.compiled.begin(step, tokens, finish, self._caches)
        layout = layout_of(step, self.block_size)
        arrays = {
            **self._ids.of(step),
            "logits_indices": step.logits_indices,
            **{name: step.arrays()[name] for name in self._adapter_inputs},
            **({name: rows_of(step)[name] for name in self._row_inputs} if self._row_inputs else {}),
            **layout.arrays,
        }
        if step.sources is not None:
            arrays["sources"] = step.sources
        with exclusive(), self._failures(len(step.input_ids)):
            values = uploaded(arrays)
            sources = values.pop("sources", None)
            if sources is not None and before is not None:
                values["input_ids"] = with_tokens(values["input_ids"], sources, before.value)
            values |= self._memory.arrays(step.memory)
            return self._compute(layout, values, finish)

    def _compute(self, layout: Layout, values: dict[str, Value], finish: Callable[[Value], Value]) -> Value:
        """Compute a step and return `finish(logits)`. The step's keys and values are in the caches afterwards."""
        self._attention.begin(layout)
        try:
            # The program writes to the caches that it is given. There must be no other reference to them, or MLX would
            # copy them.
            (found,), _ = self._program(values | dict(zip(self._names, self._caches, strict=True)), ["logits"])
        finally:
            self._attention.end()
        result = finish(found)
        self._attention.compute(result, *self._caches)
        return result

    def _read(self, value: Value) -> Array:
        """Wait for the result of a step, and copy it."""
        self._require_cache()
        with exclusive(), self._failures(len(value)):
            return downloaded(value)

    def _require_cache(self) -> None:
        if self._lost:
            raise InternalError(f"the cache was lost when an earlier step failed: {self._lost}; allocate it anew")

    @contextlib.contextmanager
    def _failures(self, count: int) -> Generator[None]:
        try:
            yield
        except Exception as error:
            # Remember the failure, so that later steps are refused: this step may have written to the caches in place,
            # so that their previous content is lost.
            self._lost = reason_of(error)
            raise InternalError(f"MLX failed in a step of {count} tokens: {self._lost}") from error

    def read_blocks(self, indices: Sequence[int]) -> Sequence[Array]:
        """Implements `DecoderExecutable.read_blocks`."""
        with exclusive():
            return [to_numpy(each) for each in self._taken(indices)]

    def write_blocks(self, indices: Sequence[int], blocks: Sequence[Array]) -> None:
        """Implements `DecoderExecutable.write_blocks`."""
        dtype = dtype_of(self._caches[0])
        shapes = [
            np.broadcast_to(np.zeros((), dtype), (1, heads, self.block_size, size + self._form.extra))
            for heads, size in self._heads
        ]
        found = checked_blocks(indices, blocks, shapes)
        with exclusive():
            self._write(indices, [from_numpy(each) for each in found])

    def read_tokens(self, blocks: Sequence[int], num_tokens: int) -> Sequence[NDArray[np.float32]]:
        """Implements `DecoderExecutable.read_tokens`."""
        with exclusive():
            found = [to_numpy(self._form.numbers(each, mx.float32)) for each in self._taken(blocks)]
        return [tokens_of(each, num_tokens) for each in found]

    def write_tokens(self, blocks: Sequence[int], tokens: Sequence[NDArray[np.float32]]) -> None:
        """Implements `DecoderExecutable.write_tokens`."""
        filled = [blocks_of(each, len(blocks), self.block_size) for each in checked_tokens(tokens, self._heads)]
        with exclusive():
            self._write(blocks, [self._form.kept(from_numpy(each)) for each in filled])

    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Implements `DecoderExecutable.copy_blocks`."""
        with exclusive():
            copies = self._taken(sources)
            mx.eval(copies)
            self._write(targets, copies)

    def _blocks(self, cache: Value, heads: int) -> Value:
        """View a layer's cache as [blocks, 2 (keys, values), heads, block size, head size]."""
        return cache.reshape((self._num_blocks, 2, heads, self.block_size, -1))

    def _taken(self, indices: Sequence[int]) -> list[Value]:
        """Copy blocks out of the cache: for each layer, the keys and then the values, [blocks, heads, block size,
        head size].
        """
        places = from_numpy(np.asarray(indices, np.int32))
        found: list[Value] = []
        for cache, (heads, _) in zip(self._caches, self._heads[::2], strict=True):
            both = mx.take(self._blocks(cache, heads), places, 0)
            found += [both[:, 0], both[:, 1]]
        return found

    def close(self) -> None:
        """Implements `DecoderExecutable.close`."""
        vars(self).pop("_program", None)
        self.compiled = None
        self._memory.forget()
        self._caches.clear()

    def _write(self, indices: Sequence[int], blocks: Sequence[Value]) -> None:
        """Write `blocks`, in the form of `_taken`, into the blocks `indices` of the caches, in place."""
        if not len(indices):
            return
        self._attention.settle()
        places = from_numpy(np.asarray(indices, np.int32))
        for index, (heads, _) in enumerate(self._heads[::2]):
            shape = self._caches[index].shape
            cache = self._blocks(self._caches.pop(index), heads)
            cache[places] = mx.stack(blocks[2 * index : 2 * index + 2], axis=1)
            self._caches.insert(index, cache.reshape(shape))
        mx.eval(self._caches)


def _swiglu(c: Context) -> None:
    c.give(swiglu(*mx.split(c.input(0), 2, axis=-1)))


def _add_norm(c: Context) -> None:
    x, weight = c.input(0), c.input(2)
    for place, found in enumerate(add_norm(x, c.input(1), weight.astype(x.dtype), float(c.attributes["epsilon"]))):
        c.give(found, place)


def _widened(logits: Value) -> Value:
    return logits.astype(mx.float32)
