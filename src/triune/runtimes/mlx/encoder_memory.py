"""Copies the encoder outputs that a decoder reads to MLX."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.core.errors import InvalidArgumentError
from triune.metal.library import Value, from_numpy


class EncoderMemory:
    """Copies the encoder's outputs that a step reads (`DecoderStep.memory`) to MLX. Steps with the same mapping object
    share one copy.
    """

    def __init__(self, names: Collection[str], kind: Any) -> None:
        """Args:
        names: the names of the encoder's outputs that the decoder reads; empty if there is no encoder.
        kind: the element type of MLX in which the decoder computes.
        """
        self._names = names
        self._kind = kind
        self._given: Mapping[str, NDArray[np.float32]] | None = None
        self._arrays: dict[str, Value] = {}

    def require(self, memory: Mapping[str, NDArray[np.float32]]) -> None:
        """Raise InvalidArgumentError if an output of the encoder that the decoder reads is missing."""
        if missing := [name for name in self._names if name not in memory]:
            raise InvalidArgumentError(f"the model reads {', '.join(sorted(missing))}, which the step's memory lacks")

    def arrays(self, memory: Mapping[str, NDArray[np.float32]]) -> Mapping[str, Value]:
        """The encoder's outputs as arrays of MLX, by name. The caller must be in the context
        `metal.library.exclusive`.
        """
        if memory is not self._given:
            self.forget()
            self._arrays = {name: from_numpy(memory[name]).astype(self._kind) for name in self._names}
            self._given = memory
        return self._arrays

    def forget(self) -> None:
        """Free the copies of the encoder's outputs."""
        self._given, self._arrays = None, {}
