"""Content-Encoding of requests and Accept-Encoding of responses, as Triton reads them.

A response is compressed only if that makes it smaller, at zlib's fastest level. Large bodies are compressed piece by
piece in threads; zlib releases the GIL.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from triune.core.errors import InvalidArgumentError, PayloadTooLargeError, UnsupportedError
from triune.frontends.limits import MAX_RATIO

Body: TypeAlias = bytes | bytearray | memoryview
"""The body of a request, in any of the types in which front ends receive it."""

MIN_COMPRESSED_BYTES = 1024
"""Smaller responses are not compressed: they fit into one network packet anyway."""

PIECE_BYTES = 256 << 10
"""The number of bytes that a thread compresses in one step, which takes a few milliseconds."""

# Up to this decompressed size, any ratio of decompressed to compressed size is accepted.
_FREE_BYTES = 8 << 20
_STEP_BYTES = 1 << 20
# How many bytes zlib reads and writes in one call. Appending its output to the data holds the GIL, which blocks the
# event loop: for microseconds with pieces of this size, for half a millisecond with pieces of 1 MiB.
_SLICE_BYTES = 64 << 10
_SAMPLES = 4
_SAMPLE_BYTES = 4096
# A response is compressed if samples of it become smaller than this fraction.
_GAIN = 0.8
_LEVEL = 1
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_ANY_FORMAT = 32 + zlib.MAX_WBITS


def is_compressed(encoding: str) -> bool:
    """Whether a Content-Encoding is a compression. Raises UnsupportedError if it is unknown."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return False
    if encoding not in _WINDOW_BITS:
        raise UnsupportedError(f"content encoding '{encoding[:64]}' is not supported; use gzip, deflate or identity")
    return True


class Decompression:
    """Decompresses the body of a request piece by piece.

    Attributes:
        data: the data decompressed so far.
    """

    def __init__(self, encoding: str, body: Body, max_bytes: int, max_ratio: int = MAX_RATIO) -> None:
        """Args:
        encoding: `gzip` or `deflate`, for error messages only: the format is detected from the data, as in Triton.
        body: the compressed body.
        max_bytes: the largest decompressed size.
        max_ratio: the largest ratio of decompressed to compressed size, checked beyond 8 MiB.
        """
        self.data = bytearray()
        self._encoding = encoding.strip().lower()
        self._body = memoryview(body)
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio
        self._stream = zlib.decompressobj(_ANY_FORMAT)
        self._num_read = 0

    def step(self) -> bool:
        """Decompress about 1 MiB more.

        Returns:
            False when everything is decompressed.

        Raises:
            InvalidArgumentError: the body is not compressed data, is truncated, or has data after its end.
            PayloadTooLargeError: the decompressed size exceeds `max_bytes` or `max_ratio`.
        """
        stream = self._stream
        end = len(self.data) + _STEP_BYTES
        while len(self.data) < end and not stream.eof:
            source = stream.unconsumed_tail
            if not source:
                source = self._body[self._num_read : self._num_read + _SLICE_BYTES]
                self._num_read += len(source)
            try:
                data = stream.decompress(source, min(_SLICE_BYTES, self._max_bytes + 1 - len(self.data)))
            except zlib.error as error:
                raise InvalidArgumentError(f"the request's body is not valid {self._encoding}: {error}") from None
            if not source and not data and not stream.eof:
                raise InvalidArgumentError(
                    f"the request's body is {self._encoding} that ends early, after {len(self.data)} bytes of data"
                )
            self.data += data
            self._check_size()
        if not stream.eof:
            return True
        num_left = len(stream.unused_data) + len(self._body) - self._num_read
        if num_left:
            raise InvalidArgumentError(f"{num_left} bytes follow the end of the request's {self._encoding} data")
        return False

    def _check_size(self) -> None:
        size = len(self.data)
        if size > self._max_bytes:
            raise PayloadTooLargeError(
                f"Decompressed data size exceeds the maximum allowed value of {self._max_bytes} bytes. "
                "Use --http-max-input-size to increase the limit."
            )
        if size > _FREE_BYTES and size > self._max_ratio * self._num_read:
            raise PayloadTooLargeError(
                f"{self._num_read} bytes of the request's body become {size} when decompressed, more than "
                f"{self._max_ratio} times as many; send it as it is, or raise --max-decompression-ratio"
            )


class Compression:
    """Compresses a response's body to `gzip` or `deflate` (zlib format) piece by piece."""

    def __init__(self, encoding: str) -> None:
        """Args:
        encoding: `gzip` or `deflate`.
        """
        self._stream = zlib.compressobj(_LEVEL, wbits=_WINDOW_BITS[encoding])

    def add(self, piece: bytes | memoryview) -> bytes:
        """Compress one more piece. Returns the compressed bytes that are ready to be sent; may be empty."""
        return self._stream.compress(piece)

    def end(self) -> bytes:
        """Finish. Returns the remaining compressed bytes."""
        return self._stream.flush()


def compress(encoding: str, parts: Sequence[bytes | memoryview]) -> bytes:
    """Concatenate the parts of a small body, and compress them."""
    stream = Compression(encoding)
    return b"".join([*(stream.add(part) for part in parts), stream.end()])


def pieces(parts: Sequence[bytes | memoryview]) -> Iterator[memoryview]:
    """Split the parts of a body into pieces of at most `PIECE_BYTES`."""
    for part in parts:
        view = memoryview(part)
        for start in range(0, len(view), PIECE_BYTES):
            yield view[start : start + PIECE_BYTES]


def is_worth_compressing(parts: Sequence[bytes | memoryview]) -> bool:
    """Whether samples from all over a body become at least a fifth smaller when they are compressed."""
    total = sum(map(len, parts))
    wanted = sorted({(total - _SAMPLE_BYTES) * index // max(1, _SAMPLES - 1) for index in range(_SAMPLES)})
    num_sampled = num_compressed = start = 0
    for part in parts:
        view = memoryview(part)
        end = start + len(view)
        for offset in wanted:
            if start <= max(0, offset) < end:
                sample = view[max(0, offset) - start :][:_SAMPLE_BYTES]
                num_sampled += len(sample)
                num_compressed += len(zlib.compress(sample, _LEVEL))
        start = end
    return num_compressed < _GAIN * num_sampled


def accepted_encoding(accept_encoding: str) -> str:
    """The encoding for a response: among the encodings with the highest quality value, the first that this server
    supports; "identity" if there is none.
    """
    best, best_weight = "identity", 0.0
    for entry in accept_encoding.split(","):
        encoding, *options = [part.strip().lower() for part in entry.split(";")]
        weight = 1.0
        for option in options:
            if option.startswith("q="):
                weight = _weight(option[2:])
        if (encoding == "identity" or encoding in _WINDOW_BITS) and weight > best_weight:
            best, best_weight = encoding, weight
    return best


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if math.isfinite(weight) else 0.0
