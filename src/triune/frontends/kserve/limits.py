"""The limits on requests and connections."""

from dataclasses import dataclass

from triune.core.errors import PayloadTooLargeError
from triune.frontends.kserve.compression import MAX_RATIO

MAX_REQUEST_BYTES = 256 << 20

MAX_GRPC_REQUEST_BYTES = 128 << 20
"""gRPC's library copies a message while no other thread of Python runs: such a one for a third of a second."""

MAX_VERSION_DIGITS = 18
"""Every number of so many digits is one of 64 bits, as versions are."""

_SHOWN_CHARACTERS = 32

# The names and flags that requests other than inferences and loads hold.
_MAX_SMALL_BYTES = 64 << 10

MAX_JSON_BYTES = 64 << 20
"""Triton takes requests of so many bytes unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits on requests and connections. A timeout counts time without progress: slow but steady clients are fine.

    Attributes:
        request_bytes: the largest request body, both compressed and decompressed.
        grpc_request_bytes: the largest gRPC message, if that is less.
        json_bytes: the largest JSON in a request.
        decompression_ratio: the largest ratio of decompressed to compressed size, checked beyond 8 MiB.
        head_bytes: the largest request line and headers (and trailers).
        chunks: the largest number of chunks of a body.
        receive_seconds: how long a whole head may take to arrive, and how long nothing of a body may arrive.
        idle_seconds: how long a connection may stay without a request.
        send_seconds: how long a client may read nothing of a response.
        linger_seconds: how long a refused connection stays open, so that the client can read the error.
        connections: the largest number of connections; over gRPC also of calls.
        streams: the largest number of concurrent calls on one gRPC connection.
    """

    request_bytes: int = MAX_REQUEST_BYTES
    grpc_request_bytes: int = MAX_GRPC_REQUEST_BYTES
    json_bytes: int = MAX_JSON_BYTES
    decompression_ratio: int = MAX_RATIO
    head_bytes: int = 64 << 10
    chunks: int = 1 << 16
    receive_seconds: float = 60.0
    idle_seconds: float = 75.0
    send_seconds: float = 60.0
    linger_seconds: float = 5.0
    connections: int = 4096
    streams: int = 1024


def check_small(num_bytes: int) -> None:
    """Raises PayloadTooLargeError if a request that holds names and flags has more bytes than any of them needs."""
    if num_bytes > _MAX_SMALL_BYTES:
        raise PayloadTooLargeError(
            f"the request has {num_bytes} bytes; for what it asks, {_MAX_SMALL_BYTES} are the limit"
        )


def too_large(num_bytes: int, max_bytes: int, *, is_json: bool = False) -> PayloadTooLargeError:
    """The error of a body of so many bytes or more, in Triton's words; of JSON others than of what may be binary."""
    size, limit = (
        (f"request JSON size of {num_bytes} bytes", "input size")
        if is_json
        else (f"request body size ({num_bytes} bytes or more)", "value")
    )
    return PayloadTooLargeError(
        f"{size} exceeds the maximum allowed {limit} of {max_bytes} bytes. "
        "Use --http-max-input-size to increase the limit."
    )


def shortened(text: str) -> str:
    """What a client called something, as a message tells it."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}... ({len(text)} characters)"
