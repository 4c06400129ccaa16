"""Decoders on OpenVINO's CPU plugin, over paged caches that Triune owns and the plugin writes in place."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from triune.core.datatypes import Array
from triune.core.decoder import CacheType, DecoderPrecision, DecoderStep, best_tokens
from triune.core.errors import TriuneError, UnsupportedError, no_memory
from triune.core.kv_blocks import checked_blocks, checked_tokens
from triune.core.pending_tokens import PendingTokens
from triune.core.step_rows import slots_of
from triune.core.units import Unit
from triune.graph.held import HeldModel
from triune.graph.paged_attention import cache_heads, memory_widths
from triune.graph.written_out import new_tokens, written_out
from triune.runtimes.openvino.cache import Cache
from triune.runtimes.openvino.few_tokens import MOST_SEQUENCES, most_few_tokens
from triune.runtimes.openvino.library import library
from triune.runtimes.openvino.one_by_one import one_token_each
from triune.runtimes.openvino.paged_attention import is_convertible
from triune.runtimes.openvino.program import CACHE_TYPES, Program

_BOTH: Final[Sequence[DecoderPrecision]] = ("fp32", "bf16")
"""The precision for steps of few tokens, and the precision for steps of many tokens."""

_WRITTEN_OUT_TYPES: Final[Mapping[CacheType, int]] = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
}
"""The types that caches may have if attention is written as standard operators, each with its ONNX element type."""

_WRITTEN_OUT_BLOCK: Final = 16
"""The number of tokens of a block if attention is written as standard operators."""

_PACKED_TYPES: Final = frozenset({TensorProto.INT4, TensorProto.UINT4, TensorProto.INT8, TensorProto.UINT8})


class OpenVinoDecoder:
    """A `core.decoder.DecoderExecutable`: fp32 on `cpu`, bf16 on `amx`. Packed weights stay packed.

    It may be compiled in both precisions, with one cache for both. The number of tokens in a step decides which of them
    computes it. With few tokens fp32 is faster, in which OpenVINO multiplies packed weights by activations rounded to 8
    bits; with many tokens bf16 is faster if the CPU has AMX. The threshold is measured when the decoder is made.

    Attributes:
        unit: `cpu` or `amx`.
        precision: the precision of steps of many tokens.
        block_size: the number of tokens in a block of the cache.
        cache_form: the name of the memory layout of blocks: see `DecoderExecutable`.
        num_few_tokens: steps of up to this many tokens are computed in fp32, larger ones in bf16, if the decoder is
            compiled in both; else 0.
    """

    can_run_ahead = True

    def __init__(
        self,
        model: HeldModel,
        *,
        unit: Unit,
        num_threads: int,
        num_blocks: int,
        precision: DecoderPrecision | None = None,
        cache_type: CacheType | None = None,
        num_few_tokens: int | None = None,
        is_exact: bool = False,
        is_reproducible: bool = False,
        has_guesses: bool = False,
    ) -> None:
        """Compile a graph in the paged form (`engine.models.forms`).

        Args:
            model: the graph; it is not needed afterwards.
            unit: `cpu` or `amx`.
            num_threads: the number of CPU threads in a step.
            num_blocks: the number of blocks of the cache.
            precision: the floating-point format. None means bf16 on `amx` and fp32 on `cpu`; or both, if the CPU has
                bf16 and the weights are quantized. The weights are then in memory twice, unless one precision turns out
                to be faster for every step.
            cache_type: the type of keys and values; None means the plugin's default on this CPU.
            num_few_tokens: the value of the attribute `num_few_tokens`; None measures it. It has no effect if one
                precision computes all steps.
            is_exact: whether activations are not rounded to 8 bits where they are multiplied by quantized weights. In
                bf16 they are never rounded, since with many tokens rounding is slower (measured on AMX).
            is_reproducible: whether a token's logits have the same bits regardless of the other tokens in its step and
                of how earlier tokens were divided into steps. This needs fp32, and a cache of floats.
            has_guesses: whether steps contain guessed tokens, which later steps overwrite if they were wrong. An 8-bit
                cache then has a scale for each token's key. By default OpenVINO has a scale for each channel of a block
                of keys, which a wrong guess would widen. With guesses, this changed 6 of 24 greedy answers of a model
                with random weights; with a scale for each token, it changed none.

        Raises:
            UnsupportedError: OpenVINO cannot compile it, or not with such a cache or precision on this CPU.
            NoMemoryError: there is not enough memory for the cache.
        """
        if precision == "fp16":
            raise UnsupportedError("OpenVINO computes decoders in fp32 and bf16 on CPUs, not in fp16")
        self._is_reproducible = is_reproducible
        self._running: _Running | None = None
        if is_reproducible:
            if precision != "fp32" or cache_type not in ("fp32", "fp16"):
                raise UnsupportedError(
                    "OpenVINO's answers are reproducible in fp32 with a cache in fp32 or fp16; precision is "
                    f"{precision}, and the cache's type {cache_type}"
                )
            is_exact = True
        if precision is not None:
            precisions = (precision,)
        elif not is_exact and cache_type in (None, "int8") and has_bf16() and _has_packed_weights(model):
            precisions = _BOTH
        else:
            precisions = ("bf16" if unit is Unit.AMX else "fp32",)
        heads = cache_heads(model.model.graph)
        widths = memory_widths(model.model.graph)
        self._is_written_out = not is_convertible(model.model.graph)
        if self._is_written_out:
            model = self._written_out(model, cache_type or ("bf16" if "bf16" in precisions else "fp32"))
            cache_type = None
        properties: dict[str, object] = {
            "INFERENCE_NUM_THREADS": num_threads,
            # With one thread use no stream: OpenVINO would ignore errors (see `openvino.runtime`).
            "NUM_STREAMS": 1 if num_threads > 1 else 0,
            "ENABLE_CPU_PINNING": False,
        }
        if cache_type is not None:
            properties["KV_CACHE_PRECISION"] = CACHE_TYPES[cache_type]
        if has_guesses:
            properties["KEY_CACHE_QUANT_MODE"] = "BY_TOKEN"
        self.unit = unit
        self._programs = [
            Program(model, each, properties, caches=heads, is_rounding=each == "fp32" and not is_exact)
            for each in precisions
        ]
        # All programs share the caches. There are several programs only if the layout of the caches does not depend on
        # the precision: with caches of 8 bits, or with attention as standard operators.
        self._caches = [Cache(self._programs[0].port(name), *each) for name, each in heads.items()]
        self._names = list(heads)
        self.block_size = self._caches[0].block_size
        self.cache_form = f"openvino {library.__version__} {self._caches[0].form} {self._caches[1].form}"
        self.num_few_tokens = 0
        if len(self._programs) > 1:
            self._choose(num_few_tokens, widths)
        self.precision = self._programs[-1].precision
        self.allocate(num_blocks)

    @property
    def block_bytes(self) -> int:
        """Implements `DecoderExecutable.block_bytes`."""
        return sum(cache.block_bytes for cache in self._caches)

    @property
    def num_blocks(self) -> int:
        """Implements `DecoderExecutable.num_blocks`."""
        return len(self._caches[0].blocks)

    def allocate(self, num_blocks: int) -> None:
        """Implements `DecoderExecutable.allocate`."""
        self._wait()
        try:
            for name, cache in zip(self._names, self._caches, strict=True):
                tensor = cache.allocate(num_blocks)
                for program in self._programs:
                    program.give(name, tensor)
        except (MemoryError, RuntimeError) as error:
            what = f"a cache of {num_blocks} blocks, {num_blocks * self.block_bytes} bytes"
            raise no_memory(what, "give the cache fewer blocks") from error

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        """Implements `DecoderExecutable.run`."""
        return self._begin(step).logits()

    def begin(self, step: DecoderStep, before: PendingTokens | None = None) -> PendingTokens:
        """Implements `DecoderExecutable.begin`. This waits for the previous step, which must have ended before its
        tokens can be chosen.
        """
        self._running = self._begin(step if before is None else step.with_tokens(before.read()))
        return self._running

    def _begin(self, step: DecoderStep) -> "_Running":
        step.require_fitting(self.num_blocks, self.block_size)
        self._wait()
        if self._is_reproducible:
            program, num_rows = self._programs[0], len(step.logits_indices)
            program.begin(one_token_each(step, self.block_size))
            return _Running(program, num_rows)
        program = self._programs[0 if len(step.input_ids) <= self.num_few_tokens else -1]
        program.begin(step)
        keep = partial(self._keep, program, step) if self._is_written_out else None
        return _Running(program, len(step.logits_indices), keep)

    def _written_out(self, model: HeldModel, cache_type: CacheType) -> HeldModel:
        """Rewrite the graph's attention as standard operators, since OpenVINO's attention operator supports neither a
        soft cap nor a bias of distances.

        Raises:
            UnsupportedError: attention as standard operators does not support this type of cache, or the decoder is to
                give reproducible answers.
        """
        why = "this decoder's attention has a soft cap of scores or a bias of distances, which OpenVINO's own lacks"
        if cache_type not in _WRITTEN_OUT_TYPES:
            raise UnsupportedError(
                f"{why}, and written out it has no cache in {cache_type}: choose {', '.join(_WRITTEN_OUT_TYPES)}"
            )
        if self._is_reproducible:
            raise UnsupportedError(
                f"{why}, and written out its sums depend on what else is in a step: remove the parameter 'reproducible'"
            )
        return written_out(model, _WRITTEN_OUT_TYPES[cache_type], _WRITTEN_OUT_BLOCK)

    def _keep(self, program: Program, step: DecoderStep) -> None:
        """Write the keys and values of a computed step to the caches."""
        slots = slots_of(step, self.block_size)
        for name, cache in zip(self._names, self._caches, strict=True):
            cache.put_new(slots, program.output(new_tokens(name)))

    def _wait(self) -> None:
        """Wait for the running step. If it fails, the error is raised when its tokens are read."""
        if self._running is not None:
            self._running.wait()
            self._running = None

    def _choose(self, num_few_tokens: int | None, widths: Mapping[str, int]) -> None:
        """Set how many tokens a step may have that the program for few tokens computes. Drop a program that would
        compute no step.

        Args:
            num_few_tokens: see `__init__`.
            widths: the widths of the encoder outputs that a step reads, by name.
        """
        if num_few_tokens is not None:
            self.num_few_tokens = num_few_tokens
            return
        self.allocate(MOST_SEQUENCES)
        few, many = self._programs
        most = most_few_tokens(few.run, many.run, widths)
        if most:
            self.num_few_tokens = most
        else:
            self._programs = [few if most is None else many]

    def read_blocks(self, indices: Sequence[int]) -> Sequence[Array]:
        """Implements `DecoderExecutable.read_blocks`."""
        self._wait()
        return [cache.blocks[list(indices)] for cache in self._caches]

    def write_blocks(self, indices: Sequence[int], blocks: Sequence[Array]) -> None:
        """Implements `DecoderExecutable.write_blocks`."""
        self._wait()
        caches = [cache.blocks for cache in self._caches]
        for cache, new in zip(caches, checked_blocks(indices, blocks, caches), strict=True):
            cache[list(indices)] = new

    def read_tokens(self, blocks: Sequence[int], num_tokens: int) -> Sequence[NDArray[np.float32]]:
        """Implements `DecoderExecutable.read_tokens`."""
        self._wait()
        return [cache.tokens(blocks, num_tokens) for cache in self._caches]

    def write_tokens(self, blocks: Sequence[int], tokens: Sequence[NDArray[np.float32]]) -> None:
        """Implements `DecoderExecutable.write_tokens`."""
        self._wait()
        heads = [(cache.heads, cache.head_size) for cache in self._caches]
        for cache, new in zip(self._caches, checked_tokens(tokens, heads), strict=True):
            cache.put_tokens(blocks, new)

    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Implements `DecoderExecutable.copy_blocks`."""
        self._wait()
        for cache in self._caches:
            cache.blocks[list(targets)] = cache.blocks[list(sources)]

    def close(self) -> None:
        """Implements `DecoderExecutable.close`."""
        self._wait()
        self._programs.clear()
        self._caches.clear()


class _Running:
    """A step that a program is computing (`PendingTokens`)."""

    def __init__(self, program: Program, num_rows: int, keep: Callable[[], None] | None = None) -> None:
        """`keep` stores the step's new keys and values. It is called when the program has finished."""
        self._program: Program | None = program
        self._keep = keep
        self._num_rows = num_rows
        self._tokens = np.zeros(0, np.int64)
        self._error: TriuneError | None = None

    def logits(self) -> NDArray[np.float32]:
        """Wait for the logits, in the program's memory."""
        assert self._program is not None
        found = self._program.finish()[: self._num_rows]
        if self._keep is not None:
            self._keep()
        return found

    def wait(self) -> None:
        """Wait for the tokens, or for the error."""
        if self._program is None:
            return
        try:
            self._tokens = best_tokens(self.logits())
        except TriuneError as error:
            self._error = error
        self._program = None

    def read(self) -> NDArray[np.int64]:
        """Implements `PendingTokens.read`."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._tokens


def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this CPU."""
    return "BF16" in library.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _has_packed_weights(model: HeldModel) -> bool:
    return any(each.data_type in _PACKED_TYPES for each in model.model.graph.initializer)
