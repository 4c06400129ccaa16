"""Content-Encoding of requests and Accept-Encoding of responses, as Triton reads them."""

import math
import zlib
from collections.abc import Sequence
from typing import TypeAlias

from triune.core.errors import InvalidArgumentError, PayloadTooLargeError, UnsupportedError

Body: TypeAlias = bytes | bytearray | memoryview
"""What arrived, in one piece."""

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_ANY_FORMAT = 32 + zlib.MAX_WBITS


def decompress(encoding: str, body: Body, max_bytes: int) -> Body:
    """A request's body without its content encoding.

    Args:
        encoding: the value of Content-Encoding: `gzip`, `deflate` or `identity`. Which of the first two is read from
            the data itself, as Triton does.
        body: the body as it came.
        max_bytes: how large it may become. No more than this is ever held.

    Raises:
        UnsupportedError: another encoding.
        InvalidArgumentError: the body is not compressed data, ends early, or goes on after its end.
        PayloadTooLargeError: it would become larger than `max_bytes`.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOW_BITS:
        raise UnsupportedError(f"content encoding '{encoding[:64]}' is not supported; use gzip, deflate or identity")
    stream = zlib.decompressobj(_ANY_FORMAT)
    try:
        data = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise InvalidArgumentError(f"the request's body is not valid {encoding}: {error}") from None
    if len(data) > max_bytes:
        raise PayloadTooLargeError(
            f"the request's body grows beyond {max_bytes} bytes when decompressed, the server's limit; "
            "send less at once, or raise --max-request-bytes"
        )
    if not stream.eof:
        raise InvalidArgumentError(f"the request's body is {encoding} that ends early, after {len(data)} bytes of data")
    if stream.unused_data:
        raise InvalidArgumentError(f"{len(stream.unused_data)} bytes follow the end of the request's {encoding} data")
    return data


def compress(encoding: str, parts: Sequence[bytes | memoryview]) -> bytes:
    """The parts, one after another, as `gzip` or `deflate` (in zlib's format)."""
    stream = zlib.compressobj(wbits=_WINDOW_BITS[encoding])
    return b"".join([*(stream.compress(part) for part in parts), stream.flush()])


def accepted_encoding(accept_encoding: str) -> str:
    """The encoding to answer in: the first of the heaviest that we know; "identity" if there is none."""
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
