"""Errors as gRPC statuses: the one place where the error tree meets gRPC's codes."""

import logging
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

import grpc

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
)

_logger = logging.getLogger(__name__)

_CODES: dict[type[BaseException], grpc.StatusCode] = {
    InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    # Triton's code for it.
    RestrictedError: grpc.StatusCode.UNAVAILABLE,
    UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
    CancelledError: grpc.StatusCode.CANCELLED,
    InternalError: grpc.StatusCode.INTERNAL,
}

# A status travels in HTTP/2 trailers, percent-encoded to three times its size; clients refuse more than 8 KiB of them.
MAX_DETAILS_BYTES = 2048


class Context(Protocol):
    """What Triune uses of `grpc.aio.ServicerContext`."""

    async def read(self) -> bytes | object:
        """The client's next message, `grpc.aio.EOF` after the last."""
        ...

    async def write(self, message: bytes) -> None:
        """Send a message, and wait until the transport takes more. One at a time."""
        ...

    def add_done_callback(self, callback: Callable[["Context"], None]) -> None:
        """Have `callback` called once the call is over, however it ends."""
        ...

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call with a status: raises."""
        ...

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None:
        """The client's headers."""
        ...


def code_of(error: TriuneError) -> grpc.StatusCode:
    """The status code of an error, or of the nearest of its base classes that has one."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return grpc.StatusCode.UNKNOWN


def details_of(error: TriuneError) -> str:
    """The error's message, cut to what a client accepts in trailers."""
    # A file's name may hold what UTF-8 cannot express.
    encoded = (str(error) or type(error).__name__).encode(errors="replace")
    if len(encoded) <= MAX_DETAILS_BYTES:
        return encoded.decode()
    return encoded[:MAX_DETAILS_BYTES].decode(errors="ignore") + " ..."


def as_triune_error(error: Exception, method: str) -> TriuneError:
    """The error itself if it is one of ours; else it is a defect, which is logged and becomes an InternalError.

    Neither keeps its traceback or its cause: their frames hold the request's bytes, and some of them hold the error,
    so that only the garbage collection would free them.
    """
    if not isinstance(error, TriuneError):
        _logger.error("gRPC method %s failed", method, exc_info=error)
    error.__traceback__ = error.__cause__ = error.__context__ = None
    if isinstance(error, TriuneError):
        return error
    return InternalError(f"{method} failed within the server: {type(error).__name__}: {error}")


async def abort(context: Context, error: TriuneError) -> NoReturn:
    """End the call with the status of an error.

    gRPC's exception for that holds the caller's frame until the garbage collection: delete the request's bytes first.
    """
    await context.abort(code_of(error), details_of(error))
