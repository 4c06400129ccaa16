"""The limits on requests and connections."""

from dataclasses import dataclass

from triune.core.errors import PayloadTooLargeError

MAX_REQUEST_BYTES = 256 << 20

MAX_RATIO = 200
"""The largest decompression ratio of a large body (zip bomb protection); zlib's maximum is about 1030."""

MAX_GRPC_REQUEST_BYTES = 128 << 20
"""The largest gRPC message, in bytes. gRPC's library holds the GIL while it copies a message: about a third of a second
for this size.
"""

MAX_VERSION_DIGITS = 18
"""The largest number of digits of a version: every number with as many digits fits into 64 bits, as versions must."""

_SHOWN_CHARACTERS = 32

# The largest body of requests that consist only of names and flags: all except inference and load.
_MAX_SMALL_BYTES = 64 << 10

MAX_HEADER_LINES = 256
"""The largest number of headers of a request: each takes a few microseconds of the event loop, however short it is."""

MAX_JSON_BYTES = 64 << 20
"""The largest JSON of a request, in bytes. Triton's default limit on HTTP requests is the same."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits on requests and connections.

    Attributes:
        request_bytes: the largest request body, both compressed and decompressed.
        grpc_request_bytes: the largest gRPC message, if that is less than `request_bytes`.
        json_bytes: the largest JSON in a request.
        decompression_ratio: the largest ratio of decompressed to compressed size, checked beyond 8 MiB.
        head_bytes: the largest size of the request line and headers together, and of trailers.
        chunks: the largest number of chunks of a body.
        receive_seconds: how long a whole head may take to arrive, and how long nothing of a body may arrive.
        idle_seconds: how long a connection may stay without a request.
        send_seconds: how long a client may read nothing of a response.
        linger_seconds: how long a refused connection stays open, so that the client can read the error.
        connections: the largest number of connections.
        streams: the largest number of concurrent calls on one gRPC connection.
        calls: the largest number of concurrent calls on all gRPC connections.
        frames_per_second: how many frames of less than 1 KiB are read from one gRPC connection in a second.
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
    calls: int = 8192
    frames_per_second: int = 20_000


def check_small(num_bytes: int) -> None:
    """Raise PayloadTooLargeError if a request that needs only names and flags has too many bytes."""
    if num_bytes > _MAX_SMALL_BYTES:
        raise PayloadTooLargeError(
            f"the request has {num_bytes} bytes; for what it asks, {_MAX_SMALL_BYTES} are the limit"
        )


def too_large(num_bytes: int, max_bytes: int, *, is_json: bool = False) -> PayloadTooLargeError:
    """Create the error for a body that is too large. The messages are Triton's, which has a different one for JSON."""
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
    """Shorten a name that a client sent, for an error message."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}... ({len(text)} characters)"
