"""Computes steps with one new token for each sequence on NVIDIA's GPUs, by functions that MLX compiles for whole steps.

Without compilation, it takes about 9 ms to describe a step to MLX and to start it, whatever its size. A compiled step
is described only once for its sizes. It also needs fewer kernels, since Triune's own kernels write to caches that MLX
regards as constant.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from onnx import GraphProto

from triune.core.decoder import DecoderStep
from triune.graph.paged_attention import BIAS_INPUT, OP_TYPE
from triune.metal.fusion import ROTARY
from triune.metal.kernels.attention import Heads
from triune.metal.library import Value, from_numpy, mx
from triune.metal.nvidia import is_nvidia
from triune.metal.paged_attention import PagedAttention
from triune.metal.program import Program
from triune.runtimes.mlx.step_inputs import Ids, is_of_single_tokens, single_tokens
from triune.runtimes.mlx.tokens import with_tokens

MOST_COMPILED: Final = 64
"""The most compiled functions that are kept, one for each size of steps."""

_FEWEST_TOKENS: Final = 64

Finish: TypeAlias = Callable[[Value], Value]


def can_compile(graph: GraphProto, head_sizes: Sequence[int], *, are_floats: bool) -> bool:
    """Whether Triune's own kernel supports the attention of a graph.

    Args:
        graph: the graph, after `metal.fusion`.
        head_sizes: the number of elements of a head in each cache.
        are_floats: whether caches hold floats.
    """
    names = {each.name for each in graph.input}
    attentions = [node for node in graph.node if node.op_type in (OP_TYPE, ROTARY)]
    is_plain = all(node.op_type == ROTARY or len(node.input) <= BIAS_INPUT for node in attentions)
    fits = all(Heads(1, 1, size, 1.0, 0, 0.0).fits for size in head_sizes)
    return is_nvidia() and are_floats and is_plain and fits and "adapters" not in names


class CompiledSteps:
    """Computes steps of one new token for each sequence, by compiled functions. It writes to the caches in place."""

    def __init__(self, program: Program, attention: PagedAttention, names: Sequence[str], ids: Ids) -> None:
        """Args:
        program: the decoder's graph, which reads no encoder and has no adapters.
        attention: the object that computes the decoder's attention.
        names: the names of the graph's inputs that are caches of layers.
        ids: limits token ids and positions to the graph's tables of embeddings and positions.
        """
        self._program, self._attention, self._names, self._ids = program, attention, names, ids
        self._compiled: OrderedDict[tuple[Any, ...], Callable[..., Value]] = OrderedDict()

    def fits(self, step: DecoderStep) -> bool:
        """Whether a step has one new token for each sequence, and no memory of an encoder."""
        return not step.memory and is_of_single_tokens(step)

    def begin(self, step: DecoderStep, before: Value | None, finish: Finish, caches: Sequence[Value]) -> Value:
        """Start the computation of `finish(logits)` for a step's logits in MLX.

        Args:
            step: a step for which `fits` is true.
            before: INT32 [rows], the tokens of the previous step; None if all tokens are known.
            finish: computes the result from the logits. It must be the same object in each step, since compiled steps
                are kept for that object.
            caches: the caches of the layers.

        Returns:
            the result of `finish`, with at least as many rows as there are sequences.
        """
        given = single_tokens(step, self._ids)
        rows, columns = given.rows, given.columns
        tokens = _wide(mx.zeros(1, dtype=mx.int32) if before is None else before)
        key = finish, rows, columns, tokens.shape[0]
        function = self._compiled.get(key)
        if function is None:
            function = self._compiled[key] = self._compile(rows, columns, finish)
            if len(self._compiled) > MOST_COMPILED:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        result = function(from_numpy(given.array), tokens, list(caches))
        self._attention.compute_whole(result)
        return result

    def _compile(self, rows: int, columns: int, finish: Finish) -> Callable[..., Value]:
        def compute(array: Value, before: Value, caches: list[Value]) -> Value:
            parts = [array[place * rows : (place + 1) * rows] for place in range(4)]
            values = {
                "input_ids": with_tokens(parts[0], parts[3], before),
                "position_ids": parts[1],
                "past.0": parts[2],
                "table.0": array[4 * rows :].reshape((rows, columns)),
                "logits_indices": mx.arange(rows, dtype=mx.int32),
                **dict(zip(self._names, caches, strict=True)),
            }
            self._attention.begin(None)
            try:
                (logits,), _ = self._program(values, ["logits"], is_compiling=True)
            finally:
                self._attention.end()
            found = finish(logits)
            return _wide(found) if found.ndim == 1 else found

        return mx.compile(compute)


def _wide(tokens: Value) -> Value:
    """Pad tokens [rows] with zeros to a power of two of rows, so that few different shapes are compiled."""
    rows = tokens.shape[0]
    width = max(_FEWEST_TOKENS, 1 << (rows - 1).bit_length())
    return tokens if rows == width else mx.concatenate([tokens, mx.zeros(width - rows, dtype=tokens.dtype)])
