"""The protocol of sample inputs with which a model's units are compared."""

from collections.abc import Mapping
from typing import Protocol

from triune.core.datatypes import Array
from triune.core.runtime import Executable


class Sample(Protocol):
    """A sample input, with which an executable can compute the model's outputs."""

    def __call__(self, executable: Executable, /) -> Mapping[str, Array]:
        """Compute the model's outputs.

        Raises:
            InvalidArgumentError: the model does not accept this input.
        """
        ...
