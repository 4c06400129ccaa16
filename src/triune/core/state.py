"""What a stateful model keeps from call to call."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, NotFoundError


class State:
    """The buffers of a stateful model, from its `make_state`. One call at a time works on them; others wait.

    Attributes:
        names: the buffers' names.
        lock: held by the call that works on the buffers.
        arrays: the buffers by name; a call replaces them.
    """

    def __init__(self, arrays: Mapping[str, Array], to_array: Callable[[str, Any], Array]) -> None:
        """Buffers as they are at first.

        Args:
            arrays: by name; they belong to the state from now on.
            to_array: checks what is written to the buffer of a name, and makes an array of it: see `write`.
        """
        self.lock = threading.Lock()
        self.arrays = dict(arrays)
        self.names: Final = tuple(arrays)
        self._to_array = to_array

    def read(self, name: str) -> Array:
        """A copy of a buffer.

        Raises:
            NotFoundError: there is no such state.
        """
        with self.lock:
            return self.arrays[self._known(name)].copy()

    def write(self, name: str, value: Any) -> None:
        """Replace a buffer.

        Raises:
            NotFoundError: there is no such state.
            InvalidArgumentError: the value is of another shape or kind, or has numbers that the buffer cannot hold.
        """
        array = self._to_array(self._known(name), value)
        with self.lock:
            self.arrays[name] = array.astype(self.arrays[name].dtype)

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raises InvalidArgumentError unless these are a model's states. For the call that holds the lock."""
        have = {name: array.shape for name, array in self.arrays.items()}
        if have != shapes:
            raise InvalidArgumentError(f"the state is of another model: it has {have}, this model has {shapes}")

    def _known(self, name: str) -> str:
        if name not in self.names:
            raise NotFoundError(f"there is no state '{name}'; there are {sorted(self.names)}")
        return name
