"""`POST /v2/models/M[/versions/V]/infer`, between a socket's bytes and the server: which model, what request."""

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn, TypeAlias
from urllib.parse import unquote

import httptools

from triune.core.datatypes import Array
from triune.core.errors import CancelledError as RequestCancelledError
from triune.core.errors import InternalError, InvalidArgumentError, TriuneError
from triune.core.requests import InferenceResponse
from triune.frontends.kserve.compression import MIN_COMPRESSED_BYTES, Body, accepted_encoding, compress
from triune.frontends.kserve.http.codec import OutputForm, decode_request, encode_response
from triune.frontends.kserve.http.raw_request import decode_raw_request
from triune.frontends.kserve.http.request_templates import RequestTemplates
from triune.frontends.kserve.offload import SMALL_BYTES
from triune.serving.server import Server

Headers: TypeAlias = Mapping[bytes, bytes]

# The app tells of versions that are no number, or longer than any.
_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([0-9]{1,18}))?/infer")
_MAX_CACHED_ROUTES = 1024
_JSON = b"Content-Type: application/json"
_BINARY = b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """What the path of an inference names."""

    model: str
    version: int | None


class Routes:
    """Which paths are inferences. Remembers those it has seen."""

    def __init__(self) -> None:
        self._known: dict[bytes, Route] = {}

    def find(self, url: bytes) -> Route | None:
        """The route of a request's target, None if it is no inference.

        Raises:
            httptools.HttpParserError: the target is no URL.
        """
        if url in self._known:
            return self._known[url]
        path: bytes | None = httptools.parse_url(url).path
        match = _PATH.fullmatch(unquote((path or b"").decode("latin-1")))
        if match is None:
            return None
        route = Route(match[1], int(match[2]) if match[2] else None)
        if len(self._known) >= _MAX_CACHED_ROUTES:
            self._known.clear()
        self._known[url] = route
        return route


class InferEndpoint:
    """What answers the inferences of all connections.

    What is small is decoded and encoded at once, by `start` and `finish`; `LargeInferences` does the rest.
    """

    def __init__(self, server: Server) -> None:
        """Args:
        server: what computes the answers.
        """
        self.routes = Routes()
        self._server = server
        self._templates = RequestTemplates()

    def start(self, route: Route, headers: Headers, body: Body) -> tuple[asyncio.Future[InferenceResponse], OutputForm]:
        """Decode a request that `is_quick`, and hand it to the server.

        Args:
            route: what its path names.
            headers: its headers, names in lower case.
            body: its body.

        Returns:
            the answer, and the form that the client wants it in.

        Raises:
            TriuneError: and nothing else.
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
            return self._server.infer(request), form
        except Exception as error:  # noqa: BLE001 - it is raised, as what a client may see
            raise_failure(error, route, self._server)

    def finish(
        self, response: InferenceResponse, form: OutputForm, headers: Headers
    ) -> tuple[bytes, list[bytes | memoryview]]:
        """Encode an answer that `is_quick_answer`.

        Args:
            response: the answer.
            form: what `start` gave.
            headers: the request's headers.

        Returns:
            the answer's own headers, and the parts of its body.

        Raises:
            TriuneError: and nothing else.
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
    """Whether a request takes less than a millisecond to decode, as far as its sizes tell.

    Tensors as binary data, however large, stay where they are; BYTES and BOOL alone are looked at.
    """
    if b"content-encoding" in headers:
        return False
    if len(body) <= SMALL_BYTES:
        return True
    size = json_bytes(headers)
    if not 0 < size <= SMALL_BYTES:
        return False
    header = bytes(body[:size])
    # A backslash may hide a datatype.
    return b"BYTES" not in header and b"BOOL" not in header and b"\\" not in header


def is_quick_answer(response: InferenceResponse, form: OutputForm, headers: Headers) -> bool:
    """Whether an answer takes less than a millisecond to encode."""
    num_bytes = 0
    for array in response.outputs.values():
        num_bytes += array.nbytes
        if array.dtype.hasobject:
            num_bytes += _content_bytes(array)
    if num_bytes <= SMALL_BYTES:
        return True
    if b"accept-encoding" in headers:
        return False
    # Views of large arrays cost nothing; all else does.
    return all(
        not array.dtype.hasobject and array.flags.c_contiguous and form.by_name.get(name, form.is_binary)
        for name, array in response.outputs.items()
    )


def result_of(future: asyncio.Future[InferenceResponse]) -> InferenceResponse:
    """The answer of a future that is done. Raises TriuneError, and nothing else."""
    try:
        return future.result()
    except TriuneError:
        raise
    except asyncio.CancelledError:
        raise RequestCancelledError("the request was cancelled within the server") from None
    except Exception as error:
        raise as_internal_error(error) from error
    finally:
        # A failed future's error knows this frame, which is not to know the future: nothing else would free them.
        del future


def content_headers(header_bytes: int | None) -> bytes:
    """An answer's headers; `header_bytes` is the size of the JSON that binary data follow."""
    return _JSON if header_bytes is None else _BINARY % header_bytes


def _content_bytes(array: Array) -> int:
    """The size of the elements of a BYTES tensor, unless their number alone is too much."""
    if array.nbytes > SMALL_BYTES:
        return 0
    # What is no bytes is an error of the encoder.
    return sum(len(element) for element in array.ravel().tolist() if isinstance(element, bytes))


def _compress_small(accept_encoding: bytes, parts: list[bytes | memoryview]) -> bytes:
    """Compress the parts of a small answer where that pays; the header that says so."""
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
    """Raise what a request is answered with that could not be begun. Called where `error` is handled.

    Raises:
        NotFoundError, UnavailableError: the request is wrong, and so is the model: as in Triton an unknown one is 404,
            whatever the body.
        TriuneError: `error` itself, or of a defect, which is logged, an InternalError.
    """
    if isinstance(error, InvalidArgumentError):
        server.model(route.model, route.version)
    if isinstance(error, TriuneError):
        raise error
    raise as_internal_error(error) from error


def as_internal_error(error: Exception) -> InternalError:
    """A defect, logged, as an error that a client may see."""
    _logger.error("an HTTP request failed within the server", exc_info=error)
    return defect(error)


def defect(error: Exception) -> InternalError:
    """What a client is told of an exception that no request should raise."""
    return InternalError(f"the request failed within the server: {type(error).__name__}: {error}")


def json_bytes(headers: Headers) -> int:
    """How much of a body is JSON in front of the tensors, for those who lay it out; 0 where that is not known."""
    size = headers.get(b"inference-header-content-length", b"")
    return int(size) if size.isdigit() and len(size) < 10 else 0


@lru_cache(maxsize=_MAX_CACHED_ROUTES)
def parse_size(value: bytes) -> int:
    """The header Inference-Header-Content-Length. Raises InvalidArgumentError if it is no number of bytes."""
    if not value.isdigit() or len(value) > 18:
        shown = value[:32].decode("latin-1")
        raise InvalidArgumentError(f"Inference-Header-Content-Length is '{shown}'; it must be a number of bytes")
    return int(value)
