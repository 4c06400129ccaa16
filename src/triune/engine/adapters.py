"""The LoRA adapters of an engine's decoder, and how they separate blocks in the prefix cache.

Keys and values depend on the adapter, and on the text that an encoder reads. A salt of both is part of the hashes of
blocks, so that only sequences with the same adapter and the same text share blocks.
"""

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np

from triune.core.errors import InvalidArgumentError
from triune.core.printable import printable
from triune.engine.source import Source


class KnownAdapters:
    """The LoRA adapters of an engine: by name, and by the number that each has in the decoder's graph. Any thread may
    use this.

    Attributes:
        digests: the digest of each adapter. It identifies stored blocks after a restart, when the adapter may have
            another number.
    """

    def __init__(self, digests: Mapping[str, bytes]) -> None:
        """`digests` has the digests of the adapters in the decoder's graph, by name, in the graph's order."""
        self.digests = dict(digests)
        self._names = ["", *self.digests]

    def number(self, name: str | None) -> int:
        """The number of an adapter in the graph, counted from 1; 0 for None, which means the model without an adapter.

        Raises:
            InvalidArgumentError: the adapter is unknown.
        """
        try:
            return self._names.index(name or "")
        except ValueError:
            known = ", ".join(self.digests) or "none"
            raise InvalidArgumentError(
                f"the LoRA adapter '{printable((name or '')[:128])}' is unknown; this model has {known}"
            ) from None

    def name(self, number: int) -> str | None:
        """The name of the adapter with this number; None for 0."""
        return self._names[number] or None

    def salt(self, number: int, salt: bytes, source: Source) -> bytes:
        """The salt of the hashes of a sequence's blocks.

        Args:
            number: the number of the sequence's adapter.
            salt: a hash of everything else, besides tokens, that the sequence's keys and values depend on.
            source: the tokens that an encoder reads for the sequence; empty if the model has no encoder.
        """
        digest = self.digests[self._names[number]] if number else b""
        read = blake2b(np.array(source, "<i8").tobytes(), digest_size=16).digest() if source else b""
        return digest + salt + read
