"""The Executor protocol: code that computes the functions of a model. The caller has checked the inputs against the
model's interface.
"""

from collections.abc import Mapping
from typing import Protocol

from triune.core.datatypes import Array


class Executor(Protocol):
    """Computes one function of a Core ML or Core AI program.

    Calls may run concurrently, and an executor keeps no state between them. It does not write to the arrays that it
    receives. The caller owns the arrays that it returns.
    """

    def run(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Compute the function once.

        Args:
            inputs: all inputs of the function, of the dtype and rank that the program declares. Images are arrays
                already: (1, channels, height, width).
            states: all states of the function, of the dtype and shape that the program declares.

        Returns:
            the outputs, and the states after the call, of the dtypes that the program declares. A classifier's label
            is an array of rank 0 (int64, or an object array of str); its dictionary is the vector of probabilities,
            in the order of the classes.

        Raises:
            InvalidArgumentError: the inputs do not fit the program: an operation refuses a shape, or an index is out
                of range.
            UnsupportedError: the program needs something that this executor lacks.
        """
        ...
