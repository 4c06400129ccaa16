"""Read the bodies of requests with a file: `multipart/form-data`, piece by piece, within limits."""

import asyncio
import contextlib
import importlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request

from triune.core.errors import InvalidArgumentError, PayloadTooLargeError, TriuneError, UnsupportedError
from triune.frontends.bodies.budget import Reservation
from triune.frontends.bodies.reader import BodyReader
from triune.frontends.text.fields import FieldError

_STEP_BYTES: Final = 1024
"""The number of bytes of a form that are parsed before other tasks of the event loop may run: for a hostile body the
parser looks at each byte.
"""

_STEP_SECONDS: Final = 0.5e-3
_MAX_PARTS: Final = 64
_MAX_FIELD_BYTES: Final = 64 << 10
"""The largest size, in bytes, of all fields together except the file, with the headers of their parts."""


@dataclass(slots=True)
class Form:
    """The content of a multipart form.

    Attributes:
        file: the bytes of part `file`; None if there is none.
        fields: the values of the other parts, by name.
    """

    file: bytearray | None = None
    fields: dict[str, list[str]] = field(default_factory=dict[str, list[str]])


async def read_form(bodies: BodyReader, request: Request, held: Reservation) -> Form:
    """Read a multipart form.

    Args:
        bodies: reads the body, piece by piece.
        request: the request.
        held: the request's reservation of memory, which is changed to the body's size.

    Raises:
        InvalidArgumentError: the body is not a valid form.
        PayloadTooLargeError: the body has too many bytes or parts.
        UnsupportedError: the body is compressed, or the library is not installed.
        UnavailableError: the memory budget is exceeded.
    """
    parts = _Parts()
    parser, parse_error = _parser(request, parts)
    begun = time.perf_counter()
    pieces = bodies.pieces(request, held)
    try:
        async for piece in pieces:
            for at in range(0, len(piece), _STEP_BYTES):
                parser.write(piece[at : at + _STEP_BYTES])
                if time.perf_counter() - begun > _STEP_SECONDS:
                    await asyncio.sleep(0)
                    begun = time.perf_counter()
        parser.finalize()
    except parse_error as error:
        await _discard(pieces)
        raise InvalidArgumentError(f"the form cannot be read: {error}") from error
    except PayloadTooLargeError:
        await _discard(pieces)
        raise
    if not parts.is_ended:
        raise InvalidArgumentError("the form ends early: its last boundary is missing")
    return parts.form


async def _discard(pieces: AsyncGenerator[bytes]) -> None:
    """Read the rest of the body of a form that is refused: otherwise a client that still sends it would find the
    connection reset, and could not read the answer. If reading fails, the refusal is answered anyway.
    """
    with contextlib.suppress(TriuneError):
        async for _ in pieces:
            pass


def _parser(request: Request, parts: "_Parts") -> tuple[Any, type[Exception]]:
    try:
        library: Any = importlib.import_module("python_multipart.multipart")
        errors: Any = importlib.import_module("python_multipart.exceptions")
    except ImportError:
        raise UnsupportedError("forms need python-multipart, not installed: pip install 'triune[engine]'") from None
    given = request.headers.get("content-type", "")
    kind, options = library.parse_options_header(given)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidArgumentError(
            f"Content-Type is '{given[:64]}'; it must be multipart/form-data with a boundary, since a file is sent"
        )
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedError("a form is read as it is: leave out Content-Encoding")
    parts.parse_options = library.parse_options_header
    names = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "part_end")
    callbacks = {f"on_{name}": getattr(parts, name) for name in (*names, "end")}
    try:
        return library.MultipartParser(boundary, callbacks), errors.FormParserError
    except errors.FormParserError as error:
        raise InvalidArgumentError(f"the form cannot be read: {error}") from error


class _Parts:
    """Collects the parts of a form. Its methods are called by the parser.

    Attributes:
        form: the form so far.
        is_ended: whether the last boundary was read.
        parse_options: the library's function for the values of headers.
    """

    def __init__(self) -> None:
        self.form = Form()
        self.is_ended = False
        self.parse_options: Callable[[bytes], tuple[bytes, dict[bytes, bytes]]]
        self._num_parts = 0
        self._num_bytes = 0
        self._header, self._value = bytearray(), bytearray()
        self._name = ""
        self._content = bytearray()

    def part_begin(self) -> None:
        """Called at the beginning of a part: forget the name and the content of the part before."""
        self._num_parts += 1
        if self._num_parts > _MAX_PARTS:
            raise PayloadTooLargeError(f"the form has more than {_MAX_PARTS} parts, the limit")
        self._name = ""
        self._content = bytearray()

    def header_field(self, data: bytes, begin: int, end: int) -> None:
        """Called with a piece of a header's name, `data` from `begin` to `end`: keep it."""
        self._count(end - begin)
        self._header += data[begin:end]

    def header_value(self, data: bytes, begin: int, end: int) -> None:
        """Called with a piece of a header's value, `data` from `begin` to `end`: keep it."""
        self._count(end - begin)
        self._value += data[begin:end]

    def header_end(self) -> None:
        """Called at the end of a header: read the part's name if the header is Content-Disposition."""
        if bytes(self._header).lower() == b"content-disposition":
            _, options = self.parse_options(bytes(self._value))
            self._name = options.get(b"name", b"").decode(errors="replace")
        self._header, self._value = bytearray(), bytearray()

    def headers_finished(self) -> None:
        """Called when all headers of a part are complete: require a name, and only one part `file`."""
        if not self._name:
            raise InvalidArgumentError("a part of the form has no name in its Content-Disposition")
        if self._name == "file":
            if self.form.file is not None:
                raise FieldError("the form has several parts 'file': send one", "file")
            self.form.file = self._content

    def part_data(self, data: bytes, begin: int, end: int) -> None:
        """Called with a piece of a part's content, `data` from `begin` to `end`: keep it."""
        if self._name != "file":
            self._count(end - begin)
        self._content += data[begin:end]

    def part_end(self) -> None:
        """Called when a part is complete: add it to the form's fields, unless it is the file."""
        if self._name == "file":
            return
        try:
            value = self._content.decode()
        except UnicodeDecodeError as error:
            raise FieldError(f"'{self._name[:64]}' is not UTF-8: {error.reason}", self._name[:64]) from None
        self.form.fields.setdefault(self._name, []).append(value)

    def end(self) -> None:
        """Called when the form is complete: set `is_ended`."""
        self.is_ended = True

    def _count(self, num_bytes: int) -> None:
        self._num_bytes += num_bytes
        if self._num_bytes > _MAX_FIELD_BYTES:
            raise PayloadTooLargeError(
                f"the form's fields beside the file have more than {_MAX_FIELD_BYTES} bytes, the limit"
            )
