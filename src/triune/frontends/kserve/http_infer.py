"""`POST /v2/models/M[/versions/V]/infer`, between a socket's bytes and the server: which model, what request."""

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

import httptools

from triune.core.errors import CancelledError as RequestCancelledError
from triune.core.errors import InternalError, InvalidArgumentError, TriuneError
from triune.core.requests import InferenceResponse
from triune.frontends.kserve.compression import Body, accepted_encoding, compress, decompress
from triune.frontends.kserve.http_codec import OutputForm, decode_request, encode_response
from triune.frontends.kserve.raw_request import decode_raw_request
from triune.frontends.kserve.request_templates import RequestTemplates
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
    """What answers the inferences of all connections."""

    def __init__(self, server: Server, max_bytes: int) -> None:
        """Args:
        server: what computes the answers.
        max_bytes: how large a body may become when it is decompressed.
        """
        self.routes = Routes()
        self._server = server
        self._max_bytes = max_bytes
        self._templates = RequestTemplates()

    def start(self, route: Route, headers: Headers, body: Body) -> tuple[asyncio.Future[InferenceResponse], OutputForm]:
        """Decode a request and hand it to the server.

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
            if b"content-encoding" in headers:
                body = decompress(headers[b"content-encoding"].decode("latin-1"), body, self._max_bytes)
            size = headers.get(b"inference-header-content-length")
            if size is None:
                request, form = decode_request(route.model, route.version, body, None)
            elif header_bytes := _parse_size(size):
                request, form = self._templates.decode(route.model, route.version, body, header_bytes)
            else:
                config = self._server.config(route.model, route.version)
                request, form = decode_raw_request(route.model, route.version, body, config)
            return self._server.infer(request), form
        except TriuneError:
            raise
        except Exception as error:
            raise as_internal_error(error) from error

    def finish(
        self, future: asyncio.Future[InferenceResponse], form: OutputForm, headers: Headers
    ) -> tuple[bytes, list[bytes | memoryview]]:
        """Encode an answer.

        Args:
            future: what `start` gave, done.
            form: likewise.
            headers: the request's headers.

        Returns:
            the answer's own headers, and the parts of its body.

        Raises:
            TriuneError: and nothing else.
        """
        try:
            parts, header_bytes = encode_response(future.result(), form)
            own_headers = _JSON if header_bytes is None else _BINARY % header_bytes
            if b"accept-encoding" in headers:
                encoding = accepted_encoding(headers[b"accept-encoding"].decode("latin-1"))
                if encoding != "identity":
                    parts[:] = [compress(encoding, parts)]
                    own_headers += b"\r\nContent-Encoding: " + encoding.encode()
        except TriuneError:
            raise
        except asyncio.CancelledError:
            raise RequestCancelledError("the request was cancelled within the server") from None
        except Exception as error:
            raise as_internal_error(error) from error
        return own_headers, parts


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


def _parse_size(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        shown = value[:32].decode("latin-1")
        raise InvalidArgumentError(f"Inference-Header-Content-Length is '{shown}'; it must be a number of bytes")
    return int(value)
