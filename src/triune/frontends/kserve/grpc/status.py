"""Maps Triune's errors to gRPC status codes."""

import asyncio
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import NoReturn, Protocol

import grpc
import grpc.aio

from triune.core.errors import (
    AlreadyExistsError,
    CancelledError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    RestrictedError,
    TriuneError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
    forget_frames,
)

_logger = logging.getLogger(__name__)

_CODES: dict[type[BaseException], grpc.StatusCode] = {
    InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    # Triton answers calls of restricted protocols with UNAVAILABLE.
    RestrictedError: grpc.StatusCode.UNAVAILABLE,
    UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
    CancelledError: grpc.StatusCode.CANCELLED,
    InternalError: grpc.StatusCode.INTERNAL,
}

# The longest status message, in bytes of UTF-8. It is sent in HTTP/2 trailers, where percent-encoding can make it three
# times as long, and clients refuse trailers of more than 8 KiB.
MAX_DETAILS_BYTES = 2048

_PUSHBACK = "grpc-retry-pushback-ms"


class Context(Protocol):
    """The part of `grpc.aio.ServicerContext` that Triune uses."""

    async def read(self) -> bytes | object:
        """Read the client's next message; `grpc.aio.EOF` after the last one."""
        ...

    async def send_initial_metadata(self, initial_metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """Send the response headers. Call it at most once, before the first `write`."""
        ...

    async def write(self, message: bytes) -> None:
        """Send a message, and wait until the transport accepts more. Calls must not overlap."""
        ...

    def add_done_callback(self, callback: Callable[["Context"], None]) -> None:
        """Call `callback` when the call has ended, for whatever reason."""
        ...

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call with a status. Always raises."""
        ...

    def set_trailing_metadata(self, trailing_metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """Set the headers that are sent with the call's status."""
        ...

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None:
        """The call's request headers."""
        ...


def code_of(error: TriuneError) -> grpc.StatusCode:
    """The status code of an error, or of the nearest of its base classes that has one."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return grpc.StatusCode.UNKNOWN


def details_of(error: TriuneError) -> str:
    """The error's message, cut to what a client accepts in trailers."""
    # Replace characters that UTF-8 cannot encode: a file name in the message may have some.
    encoded = (str(error) or type(error).__name__).encode(errors="replace")
    if len(encoded) <= MAX_DETAILS_BYTES:
        return encoded.decode()
    return encoded[:MAX_DETAILS_BYTES].decode(errors="ignore") + " ..."


def as_triune_error(error: Exception, method: str) -> TriuneError:
    """Return a TriuneError without its traceback; log any other exception and return an InternalError for it."""
    if not isinstance(error, TriuneError):
        _logger.error("gRPC method %s failed", method, exc_info=error)
    forget_frames(error)
    if isinstance(error, TriuneError):
        return error
    return InternalError(f"{method} failed within the server: {type(error).__name__}: {error}")


async def abort(context: Context, error: TriuneError) -> NoReturn:
    """End the call with the status of an error.

    The exception that gRPC raises keeps the caller's frame alive until the garbage collector runs: delete the
    request's bytes before calling this.
    """
    if isinstance(error, UnavailableError) and error.retry_after_seconds > 1:
        # gRPC's clients that retry wait for this time (gRFC A6).
        context.set_trailing_metadata(((_PUSHBACK, f"{error.retry_after_seconds * 1000}"),))
    with ended_by_leaving():
        await context.abort(code_of(error), details_of(error))
    raise AssertionError("abort always raises")


@contextmanager
def ended_by_leaving() -> Generator[None]:
    """If the block fails because the client has disconnected, end the call without a log message.

    Raises:
        asyncio.CancelledError: the client has left. gRPC expects this error from such a call.
    """
    try:
        yield
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
