"""`POST /v2/models/M[/versions/V]/infer`, between a socket's bytes and the server: which model, what request."""

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import httptools

from triune.core.errors import CancelledError as RequestCancelledError
from triune.core.errors import InternalError, InvalidArgumentError, TriuneError
from triune.core.requests import InferenceResponse
from triune.frontends.kserve.compression import accepted_encoding, compress, decompress
from triune.frontends.kserve.http_codec import OutputForm, decode_request, encode_response
from triune.frontends.kserve.raw_request import decode_raw_request
from triune.frontends.kserve.request_templates import RequestTemplates
from triune.serving.server import Server

_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([0-9]+))?/infer")
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


class InferEndpoint:
    """What all inferences share."""

    def __init__(self, server: Server, max_bytes: int) -> None:
        """Args:
        server: what answers them.
        max_bytes: how large a body may become when it is decompressed.
        """
        self.server = server
        self.max_bytes = max_bytes
        self.routes = Routes()
        self.templates = RequestTemplates()


class InferCall:
    """One inference on a connection: what is known of it while it comes in and goes out."""

    __slots__ = ("form", "headers", "route")

    def __init__(self, route: Route, headers: Mapping[bytes, bytes]) -> None:
        """Args:
        route: what its path names.
        headers: its headers, names in lower case.
        """
        self.route = route
        self.headers = headers
        self.form: OutputForm | None = None

    def start(self, endpoint: InferEndpoint, body: bytes | bytearray) -> asyncio.Future[InferenceResponse]:
        """Decode the request and hand it to the server. Raises a TriuneError, and nothing else."""
        try:
            headers = self.headers
            if b"content-encoding" in headers:
                body = decompress(headers[b"content-encoding"].decode("latin-1"), body, endpoint.max_bytes)
            size = headers.get(b"inference-header-content-length")
            model, version = self.route.model, self.route.version
            if size is None:
                request, self.form = decode_request(model, version, body, None)
            elif header_bytes := _parse_size(size):
                request, self.form = endpoint.templates.decode(model, version, body, header_bytes)
            else:
                request, self.form = decode_raw_request(model, version, body, endpoint.server.config(model, version))
            return endpoint.server.infer(request)
        except TriuneError:
            raise
        except Exception as error:
            raise as_internal_error(error) from error

    def finish(self, future: asyncio.Future[InferenceResponse]) -> tuple[bytes, list[bytes | memoryview]]:
        """The answer's own headers, and the parts of its body. Raises a TriuneError, and nothing else."""
        try:
            parts, header_bytes = encode_response(future.result(), self.form or OutputForm(False, {}))
            headers = _JSON if header_bytes is None else _BINARY % header_bytes
            if b"accept-encoding" in self.headers:
                encoding = accepted_encoding(self.headers[b"accept-encoding"].decode("latin-1"))
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
    if not value.isdigit() or len(value) > 18:
        shown = value[:32].decode("latin-1")
        raise InvalidArgumentError(f"Inference-Header-Content-Length is '{shown}'; it must be a number of bytes")
    return int(value)
