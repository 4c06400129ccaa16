"""The Executor protocol, between a model's interface and the code that computes its functions."""

from collections.abc import Mapping
from typing import Protocol

from triune.core.datatypes import Array


class Executor(Protocol):
    """Computes one function of a program.

    Calls may run concurrently, and an executor keeps no state between them. It does not write to the arrays that it
    receives. The caller owns the arrays that it returns.
    """

    def run(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Compute.

        Args:
            inputs: every input of the function, of the dtype and rank that the program declares. Images are arrays
                already: (1, channels, height, width).
            states: every state of the function, of the dtype and shape that the program declares.

        Returns:
            The outputs and the states after the call, of the dtypes that the program declares. A classifier's label
            is an array of rank 0 (int64, or an object array of str); its dictionary is the vector of probabilities,
            in the order of the classes.

        Raises:
            InvalidArgumentError: the inputs do not suit the program: a shape that an operation refuses, an index out
                of range.
            UnsupportedError: the program does what this executor does not.
        """
        ...
