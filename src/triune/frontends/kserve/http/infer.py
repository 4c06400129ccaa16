"""The endpoint `POST /v2/models/M[/versions/V]/infer`: routing, decoding and encoding of small requests."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn, TypeAlias
from urllib.parse import unquote

import httptools

from triune.core.errors import CancelledError as RequestCancelledError
from triune.core.errors import InvalidArgumentError, TriuneError
from triune.core.requests import InferenceResponse
from triune.frontends.bodies.compression import MIN_COMPRESSED_BYTES, Body, accepted_encoding, compress
from triune.frontends.bodies.offload import SMALL_BYTES
from triune.frontends.defects import as_internal_error
from triune.frontends.kserve.http.codec import OutputForm, decode_request, encode_response
from triune.frontends.kserve.http.raw_request import decode_raw_request
from triune.frontends.kserve.http.request_templates import RequestTemplates
from triune.frontends.kserve.large_tensors import encoded_bytes
from triune.frontends.kserve.power import HEADER_BYTES, in_mode
from triune.serving.server import Server

Headers: TypeAlias = Mapping[bytes, bytes]

# Paths whose version is not a number, or too long, do not match. The app answers them with an error.
_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([0-9]{1,18}))?/infer")
_MAX_CACHED_ROUTES = 1024
_JSON = b"Content-Type: application/json"
_BINARY = b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d"


@dataclass(frozen=True, slots=True)
class Route:
    """The model and version in an inference request's path."""

    model: str
    version: int | None


class Routes:
    """Recognizes the paths of inference requests, with a cache."""

    def __init__(self) -> None:
        self._known: dict[bytes, Route] = {}

    def find(self, url: bytes) -> Route | None:
        """Get the route of a request's target; None if it is not an inference path.

        Raises:
            httptools.HttpParserError: the target is not a URL.
        """
        if url in self._known:
            return self._known[url]
        path: bytes | None = httptools.parse_url(url).path
        try:
            match = _PATH.fullmatch(unquote((path or b"").decode("latin-1"), errors="strict"))
        except UnicodeDecodeError:
            match = None
        if match is None:
            return None
        route = Route(match[1], int(match[2]) if match[2] else None)
        if len(self._known) >= _MAX_CACHED_ROUTES:
            self._known.clear()
        self._known[url] = route
        return route


class InferEndpoint:
    """Decodes and encodes small inference requests of all connections, on the event loop.

    `LargeInferences` does the same for large requests, in threads and processes.
    """

    def __init__(self, server: Server) -> None:
        """Args:
        server: the server.
        """
        self.routes = Routes()
        self._server = server
        self._templates = RequestTemplates()

    def start(self, route: Route, headers: Headers, body: Body) -> tuple[asyncio.Future[InferenceResponse], OutputForm]:
        """Decode a request for which `is_quick` is true, and submit it to the server.

        Args:
            route: the model and version.
            headers: the headers, with names in lower case.
            body: the body.

        Returns:
            the future of the response, and the form of its outputs.

        Raises:
            TriuneError: the request failed. No other exception is raised.
        """
        try:
            size = headers.get(b"inference-header-content-length")
            if size is None:
                request, form = decode_request(route.model, route.version, body, None)
            elif header_bytes := parse_size(size):
                request, form = self._templates.decode(route.model, route.version, body, header_bytes)
            else:
                config = self._server.config(route.model, route.version)
                request, form = decode_raw_request(route.model, route.version, body, config)
            if HEADER_BYTES in headers:
                request = in_mode(request, headers[HEADER_BYTES])
            return self._server.infer(request), form
        except Exception as error:  # noqa: BLE001 - it is raised, as what a client may see
            raise_failure(error, route, self._server)

    def finish(
        self, response: InferenceResponse, form: OutputForm, headers: Headers
    ) -> tuple[bytes, list[bytes | memoryview]]:
        """Encode a response for which `is_quick_answer` is true.

        Args:
            response: the response.
            form: the form that `start` returned.
            headers: the request's headers.

        Returns:
            the response's headers, and the parts of its body.

        Raises:
            TriuneError: encoding failed. No other exception is raised.
        """
        try:
            parts, header_bytes = encode_response(response, form)
            own_headers = content_headers(header_bytes)
            if b"accept-encoding" in headers:
                own_headers += _compress_small(headers[b"accept-encoding"], parts)
        except TriuneError:
            raise
        except Exception as error:
            raise as_internal_error(error) from error
        return own_headers, parts


def is_quick(headers: Headers, body: Body) -> bool:
    """Whether decoding a request takes less than a millisecond, judged by its sizes.

    Binary tensors of any size are quick, since their arrays are views of the body; except BYTES and BOOL, whose
    elements are checked.
    """
    if b"content-encoding" in headers:
        return False
    if len(body) <= SMALL_BYTES:
        return True
    size = json_bytes(headers)
    if not 0 < size <= SMALL_BYTES:
        return False
    header = bytes(body[:size])
    # A header with an escape sequence is not quick either: it may spell the name of such a datatype with one.
    return b"BYTES" not in header and b"BOOL" not in header and b"\\" not in header


def is_quick_answer(response: InferenceResponse, form: OutputForm, headers: Headers) -> bool:
    """Whether encoding a response takes less than a millisecond."""
    if encoded_bytes(response.outputs) <= SMALL_BYTES:
        return True
    return b"accept-encoding" not in headers and _is_sent_as_views(response, form)


def _is_sent_as_views(response: InferenceResponse, form: OutputForm) -> bool:
    # Large contiguous arrays are sent as views, without a copy; everything else takes time.
    return all(
        not array.dtype.hasobject and array.flags.c_contiguous and form.by_name.get(name, form.is_binary)
        for name, array in response.outputs.items()
    )


def result_of(future: asyncio.Future[InferenceResponse]) -> InferenceResponse:
    """The response of a future that is done. Any error is raised as a TriuneError."""
    try:
        return future.result()
    except TriuneError:
        raise
    except asyncio.CancelledError:
        raise RequestCancelledError("the request was cancelled within the server") from None
    except Exception as error:
        raise as_internal_error(error) from error
    finally:
        # Drop the reference to the future: the future refers to its error, and the error's traceback to this frame. If
        # the frame referred to the future, they would form a reference cycle.
        del future


def content_headers(header_bytes: int | None) -> bytes:
    """The HTTP headers of a response's content. `header_bytes` is the size of the JSON if binary data follow it, else
    None.
    """
    return _JSON if header_bytes is None else _BINARY % header_bytes


def _compress_small(accept_encoding: bytes, parts: list[bytes | memoryview]) -> bytes:
    """Compress a small response in place, if that makes it smaller.

    Returns:
        the line of the header Content-Encoding, or b"".
    """
    num_bytes = sum(map(len, parts))
    if num_bytes < MIN_COMPRESSED_BYTES:
        return b""
    encoding = accepted_encoding(accept_encoding.decode("latin-1"))
    if encoding == "identity":
        return b""
    compressed = compress(encoding, parts)
    if len(compressed) >= num_bytes:
        return b""
    parts[:] = [compressed]
    return b"\r\nContent-Encoding: " + encoding.encode()


def raise_failure(error: Exception, route: Route, server: Server) -> NoReturn:
    """Raise the error with which to answer a request that could not be started. Call it while handling `error`.

    Raises:
        NotFoundError, UnavailableError: the request is invalid, and the model is also unknown or not ready. As in
            Triton, the model's error is reported.
        TriuneError: `error` itself, or an InternalError for an unexpected exception, which is logged.
    """
    if isinstance(error, InvalidArgumentError):
        server.model(route.model, route.version)
    if isinstance(error, TriuneError):
        raise error
    raise as_internal_error(error) from error


def json_bytes(headers: Headers) -> int:
    """The size of the JSON before the binary tensors, which must be aligned in memory; 0 if it is unknown."""
    size = headers.get(b"inference-header-content-length", b"")
    return int(size) if size.isdigit() and len(size) < 10 else 0


@lru_cache(maxsize=_MAX_CACHED_ROUTES)
def parse_size(value: bytes) -> int:
    """Parse the header Inference-Header-Content-Length. Raises InvalidArgumentError if it is not a number of bytes."""
    if not value.isdigit() or len(value) > 18:
        shown = value[:32].decode("latin-1")
        raise InvalidArgumentError(f"Inference-Header-Content-Length is '{shown}'; it must be a number of bytes")
    return int(value)
