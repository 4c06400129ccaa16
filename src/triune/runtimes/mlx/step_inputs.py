"""Combines the arrays of a decoder's step in one array, so that MLX makes one copy instead of several."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto

from triune.core.decoder import DecoderStep
from triune.metal.library import Value, from_numpy

_MOST: Final = 2**31 - 1
_FEWEST_COLUMNS: Final = 8


class Ids:
    """Limits token ids and positions to the sizes of the tables that a graph indexes by them, since MLX checks no
    index.
    """

    def __init__(self, graph: GraphProto) -> None:
        rows = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
        self._sizes: dict[str, int] = {}
        for node in graph.node:
            if node.op_type == "Gather" and node.input[0] in rows:
                self._sizes[node.input[1]] = min(rows[node.input[0]], self._sizes.get(node.input[1], _MOST))

    def of(self, step: DecoderStep) -> dict[str, NDArray[np.int64]]:
        """The arrays `input_ids` and `position_ids` of a step."""
        return {
            name: np.clip(array, 0, self._sizes.get(name, _MOST) - 1)
            for name, array in (("input_ids", step.input_ids), ("position_ids", step.position_ids))
        }


def uploaded(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Value]:
    """Copy arrays of integers to MLX as INT32, all in one copy."""
    whole = from_numpy(np.concatenate([each.reshape(-1) for each in arrays.values()], dtype=np.int32, casting="unsafe"))
    found: dict[str, Value] = {}
    first = 0
    for name, each in arrays.items():
        found[name] = whole[first : first + each.size].reshape(each.shape)
        first += each.size
    return found


@dataclass(frozen=True, slots=True)
class SingleTokens:
    """A step with one new token for each sequence, as one array.

    Attributes:
        array: INT32 [4 * rows + rows * columns]: token ids, positions, tokens in the cache (-1 for rows beyond the last
            sequence), `DecoderStep.sources`, then the blocks of each row.
        rows: the number of sequences, padded so that few different numbers of rows occur.
        columns: a power of two, at least as large as the most blocks of a sequence.
    """

    array: NDArray[np.int32]
    rows: int
    columns: int


def is_of_single_tokens(step: DecoderStep) -> bool:
    """Whether a step has one new token of each sequence, with the logits of all of them in their order."""
    count = len(step.input_ids)
    return (
        len(step.past_lengths) == len(step.logits_indices) == count
        and bool((np.diff(step.subsequence_begins) == 1).all())
        and bool((step.logits_indices == np.arange(count)).all())
    )


def single_tokens(step: DecoderStep, ids: Ids) -> SingleTokens:
    """The arrays of a step for which `is_of_single_tokens` is true."""
    count, begins = len(step.input_ids), step.block_indices_begins
    held = np.diff(begins)
    rows, columns = _rows(count), max(_FEWEST_COLUMNS, 1 << (int(held.max()) - 1).bit_length())
    numbers = np.zeros((4, rows), np.int32)
    numbers[2:] = -1
    numbers[:2, :count] = list(ids.of(step).values())
    numbers[2, :count] = step.past_lengths
    if step.sources is not None:
        numbers[3, :count] = step.sources
    table = np.zeros((rows, columns), np.int32)
    table[:count][np.arange(columns) < held[:, np.newaxis]] = step.block_indices
    return SingleTokens(np.concatenate([numbers.reshape(-1), table.reshape(-1)]), rows, columns)


def _rows(count: int) -> int:
    """The smallest number of rows that is at least `count`, among 1, 2, 4, 8, 12, 16, 24, 32, 48, 64, ...: from 8 on,
    there are two sizes for each power of two.
    """
    power = 1 << (count - 1).bit_length()
    return power * 3 // 4 if power >= 16 and count <= power * 3 // 4 else power
