"""Joins the encoder outputs of a step's sequences for the decoder."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from triune.engine.sequence import Sequence

Memory: TypeAlias = Mapping[str, NDArray[np.float32]]
"""The encoder output that one sequence reads, by the names of the decoder's inputs: FP32 [1, source tokens, width]
each.
"""


class MemoryRows:
    """Joins the encoder outputs of sequences, and keeps the result as long as steps compute the same sequences, since
    the result takes megabytes for each sequence.
    """

    def __init__(self) -> None:
        self._sequences: tuple[Sequence, ...] = ()
        self._joined: Memory = {}

    def of(self, sequences: Seq[Sequence]) -> Memory:
        """The memory of a step (`DecoderStep.memory`) for sequences of which either all or none have an encoder
        output.
        """
        now = tuple(sequences)
        if now != self._sequences:
            self.forget()
            memories = [each.memory for each in now]
            if len(now) == 1:
                self._joined = memories[0]
            else:
                self._joined = {name: _filled_up([each[name] for each in memories]) for name in memories[0]}
            self._sequences = now
        return self._joined

    def forget(self) -> None:
        """Free the joined encoder outputs."""
        self._sequences, self._joined = (), {}


def _filled_up(arrays: Seq[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Stack arrays, FP32 [1, source tokens, width] each, to one array, FP32 [number of arrays, largest number of source
    tokens, width]. Shorter ones are padded with 0, which is also the value of a mask at padding.
    """
    joined = np.zeros((len(arrays), max(each.shape[1] for each in arrays), arrays[0].shape[2]), np.float32)
    for row, each in zip(joined, arrays, strict=True):
        row[: each.shape[1]] = each[0]
    return joined
