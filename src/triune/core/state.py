"""The state of a stateful model: buffers that it keeps from call to call."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, NotFoundError


class State:
    """The buffers of a stateful model, made by its `make_state`. Only one call at a time uses them; others wait.

    Attributes:
        names: the buffers' names.
        lock: the lock that a call holds while it uses the buffers.
        arrays: the buffers by name; a call replaces them.
    """

    def __init__(self, arrays: Mapping[str, Array], to_array: Callable[[str, Any], Array]) -> None:
        """Create a state from its first buffers.

        Args:
            arrays: the buffers by name; the state owns them from now on.
            to_array: takes a buffer's name and a value; checks the value and returns it as an array (see `write`).
        """
        self.lock = threading.Lock()
        self.arrays = dict(arrays)
        self.names: Final = tuple(arrays)
        self._to_array = to_array

    def read(self, name: str) -> Array:
        """Return a copy of a buffer.

        Raises:
            NotFoundError: there is no such state.
        """
        with self.lock:
            return self.arrays[self._known(name)].copy()

    def write(self, name: str, value: Any) -> None:
        """Replace a buffer.

        Raises:
            NotFoundError: there is no such state.
            InvalidArgumentError: the value has another shape or datatype, or numbers that the buffer cannot hold.
        """
        array = self._to_array(self._known(name), value)
        with self.lock:
            self.arrays[name] = array.astype(self.arrays[name].dtype)

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise InvalidArgumentError unless the buffers have these shapes. The caller must hold the lock."""
        have = {name: array.shape for name, array in self.arrays.items()}
        if have != shapes:
            raise InvalidArgumentError(f"the state is of another model: it has {have}, this model has {shapes}")

    def _known(self, name: str) -> str:
        if name not in self.names:
            raise NotFoundError(f"there is no state '{name}'; there are {sorted(self.names)}")
        return name
