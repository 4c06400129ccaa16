"""Write JSON piece by piece, since encoding or sending megabytes at once would block the event loop."""

from collections.abc import Iterable
from typing import Any

import orjson

_PART_BYTES = 64 << 10


class JsonParts:
    """Collects the pieces of a JSON document.

    Attributes:
        parts: the JSON so far, in pieces of about 64 KiB. The last, shorter piece is added by `flush`.
    """

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._last: list[bytes] = []
        self._last_bytes = 0

    def add(self, *texts: bytes) -> None:
        """Add pieces of JSON."""
        for text in texts:
            self._last.append(text)
            self._last_bytes += len(text)
            if self._last_bytes >= _PART_BYTES:
                self.flush()

    def open_object(self, members: dict[str, Any], name: str) -> None:
        """Begin an object with some members, and then the key of one more."""
        self.add(orjson.dumps(members)[:-1], b"," if members else b"", orjson.dumps(name), b":")

    def add_array(self, elements: Iterable[bytes]) -> None:
        """Add an array. Each of `elements` is one or more elements, encoded, with commas between them."""
        self.add(b"[")
        for number, each in enumerate(elements):
            self.add(b"," if number else b"", each)
        self.add(b"]")

    def flush(self) -> list[bytes]:
        """Move the remaining JSON to `parts`, and return `parts`."""
        if self._last:
            self.parts.append(b"".join(self._last))
            self._last, self._last_bytes = [], 0
        return self.parts


def encoded_elements(elements: list[Any]) -> bytes:
    """The elements of an array, encoded, with commas between them."""
    return orjson.dumps(elements)[1:-1]
