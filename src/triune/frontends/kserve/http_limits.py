"""What a client may ask of the HTTP server."""

from dataclasses import dataclass

MAX_REQUEST_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may ask of the server.

    Attributes:
        request_bytes: size of a request's body, as it comes and decompressed.
        head_bytes: size of a request's line and headers (and of trailers), beyond what one read of the socket gives.
        chunks: how many chunks a body may come in.
        receive_seconds: time from a request's first byte to its last.
        idle_seconds: time between requests on a connection that is kept alive.
        send_seconds: time in which a client must take an answer.
        linger_seconds: after refusing a request half way, time for the client to read why.
    """

    request_bytes: int = MAX_REQUEST_BYTES
    head_bytes: int = 64 << 10
    chunks: int = 1 << 17
    receive_seconds: float = 60.0
    idle_seconds: float = 75.0
    send_seconds: float = 60.0
    linger_seconds: float = 5.0
