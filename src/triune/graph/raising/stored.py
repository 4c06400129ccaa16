"""Limit how much memory the constants of a program may take while it is raised.

A small file can have large constants: an entry of a look-up table may have 256 elements for an index of one bit, one
weight may be in many constants, and a constant may be one number for all its elements.
"""

import math

from triune.core.errors import UnsupportedError
from triune.graph.raising.types import Array

_MOST_TIMES = 256
"""The arrays that are made may take this many times the bytes of the stored constants. Weights of one bit take 32 times
their size in fp32, and those of Apple's tools with entries of several elements 64 times. Both the
decompressed array and the constant that is then written to the graph count.
"""

_LEAST_BYTES = 256 << 20
"""The limit on the total bytes of the arrays that are made is never lower than this. The stored constants may be much
smaller: one whose elements are all equal takes almost no bytes in the file.
"""


class Stored:
    """Counts the bytes of a program's constants and of all arrays computed from them, and limits the latter."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()
        self._stored_bytes = 0
        self._made_bytes = 0

    def add(self, array: Array) -> None:
        """Count the bytes of a constant in the file. Memory that was counted before is not counted again, and one
        number that stands for several elements is not counted.
        """
        is_repeated = array.size > 1 and 0 in array.strides
        key = (int(array.__array_interface__["data"][0]), array.nbytes)
        if not is_repeated and key not in self._seen:
            self._seen.add(key)
            self._stored_bytes += array.nbytes

    def make(self, *factors: int) -> None:
        """Count an array of as many bytes as the product of `factors`, before it is made.

        Raises:
            UnsupportedError: all arrays together take too many times what the constants take.
        """
        self._made_bytes += math.prod(factors)
        most = _LEAST_BYTES + _MOST_TIMES * self._stored_bytes
        if self._made_bytes > most:
            raise UnsupportedError(
                f"constants of {self._stored_bytes} bytes become {self._made_bytes} bytes or more; {most} are the most "
                f"({_MOST_TIMES} times as many, and {_LEAST_BYTES}): store them less compressed, or compute them from "
                "an input"
            )
