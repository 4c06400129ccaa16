"""`POST /v2/models/M[/versions/V]/infer`, between a socket's bytes and the server: which model, what request."""

import asyncio
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

import httptools

from triune.core.errors import CancelledError as RequestCancelledError
from triune.core.errors import InternalError, InvalidArgumentError, TriuneError
from triune.core.requests import InferenceResponse
from triune.frontends.kserve.compression import accepted_encoding, compress, decompress
from triune.frontends.kserve.http_codec import OutputForm, decode_request, encode_response
from triune.frontends.kserve.raw_request import decode_raw_request
from triune.serving.server import Server

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([0-9]+))?/infer")
_MAX_CACHED_ROUTES = 1024
_JSON = b"application/json"
_BINARY = b"application/octet-stream"

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
        route = self._known.get(url)
        return route or self._parse(url)

    def _parse(self, url: bytes) -> Route | None:
        path: bytes | None = httptools.parse_url(url).path
        match = _PATH.fullmatch(unquote((path or b"").decode("latin-1")))
        if match is None:
            return None
        route = Route(match[1], int(match[2]) if match[2] else None)
        if len(self._known) >= _MAX_CACHED_ROUTES:
            self._known.clear()
        self._known[url] = route
        return route


class InferCall:
    """One inference on a connection: what is known of it while it comes in and goes out."""

    __slots__ = ("accept_encoding", "content_encoding", "form", "header_bytes", "route")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.header_bytes: bytes | None = None
        self.content_encoding: bytes | None = None
        self.accept_encoding: bytes | None = None
        self.form: OutputForm | None = None

    def read_headers(self, headers: Headers) -> None:
        """Take what matters to an inference. Names are in lower case."""
        for name, value in headers:
            if name == b"inference-header-content-length":
                self.header_bytes = value
            elif name == b"content-encoding":
                self.content_encoding = value
            elif name == b"accept-encoding":
                self.accept_encoding = value

    def start(self, server: Server, body: bytes | bytearray, max_bytes: int) -> asyncio.Future[InferenceResponse]:
        """Decode the request and hand it to the server. Raises a TriuneError, and nothing else."""
        try:
            if self.content_encoding is not None:
                body = decompress(self.content_encoding.decode("latin-1"), body, max_bytes)
            header_bytes = None if self.header_bytes is None else _parse_size(self.header_bytes)
            model, version = self.route.model, self.route.version
            if header_bytes == 0:
                request, self.form = decode_raw_request(model, version, body, server.config(model, version))
            else:
                request, self.form = decode_request(model, version, body, header_bytes)
            return server.infer(request)
        except TriuneError:
            raise
        except Exception as error:
            raise as_internal_error(error) from error

    def finish(self, future: asyncio.Future[InferenceResponse]) -> tuple[bytes, list[bytes | memoryview]]:
        """The answer's own headers, and the parts of its body. Raises a TriuneError, and nothing else."""
        try:
            parts, header_bytes = encode_response(future.result(), self.form or OutputForm())
            headers = b"Content-Type: " + (_JSON if header_bytes is None else _BINARY)
            if header_bytes is not None:
                headers += b"\r\nInference-Header-Content-Length: %d" % header_bytes
            if self.accept_encoding is not None:
                encoding = accepted_encoding(self.accept_encoding.decode("latin-1"))
                if encoding != "identity":
                    parts[:] = [compress(encoding, parts)]
                    headers += b"\r\nContent-Encoding: " + encoding.encode()
        except TriuneError:
            raise
        except asyncio.CancelledError:
            raise RequestCancelledError("the request was cancelled within the server") from None
        except Exception as error:
            raise as_internal_error(error) from error
        return headers, parts


def as_internal_error(error: Exception) -> InternalError:
    """A defect, logged, as an error that a client may see."""
    _logger.error("an HTTP request failed within the server", exc_info=error)
    return defect(error)


def defect(error: Exception) -> InternalError:
    """What a client is told of an exception that no request should raise."""
    return InternalError(f"the request failed within the server: {type(error).__name__}: {error}")


def _parse_size(value: bytes) -> int:
    text = value.strip()
    if not text.isdigit() or len(text) > 18:
        shown = text[:32].decode("latin-1")
        raise InvalidArgumentError(f"Inference-Header-Content-Length is '{shown}'; it must be a number of bytes")
    return int(text)
