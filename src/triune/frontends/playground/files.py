"""The files of the page, as responses with headers that restrict what a browser may do."""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from triune.core.errors import NotFoundError

PAGE: Final = "index.html"
"""The file that `/` answers with."""

_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

# Images and sounds that the user chooses are shown from memory (blob:). Code and styles in the page itself are not
# allowed, and scripts must not convert text into elements.
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "media-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A browser may keep a file, but must ask each time whether it has changed.
    "Cache-Control": "no-cache",
}


class PageFiles:
    """The files of the page, which are read once."""

    def __init__(self) -> None:
        """Read the files from the package."""
        folder = files("triune.frontends.playground") / "static"
        self._contents = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
        self._tags = {name: f'"{hashlib.sha256(each).hexdigest()[:32]}"' for name, each in self._contents.items()}

    async def page(self, request: Request) -> Response:
        """Answer with the page itself, `index.html`."""
        return self._answer(request, PAGE)

    async def file(self, request: Request) -> Response:
        """Answer with the file that the path names.

        Raises:
            NotFoundError: the page has no such file.
        """
        return self._answer(request, request.path_params["file"])

    def _answer(self, request: Request, name: str) -> Response:
        if name not in self._contents:
            raise NotFoundError(f"the page at / has no file '{name[:64]}'")
        tag = self._tags[name]
        headers = {**HEADERS, "ETag": tag}
        if tag in _tags_of(request):
            return Response(status_code=304, headers=headers)
        return Response(self._contents[name], headers=headers, media_type=_TYPES[name.rpartition(".")[2]])


def _tags_of(request: Request) -> list[str]:
    """The entity tags in If-None-Match, without the mark W/ of weak tags (proxies add it to compressed files)."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return [each.strip().removeprefix("W/") for each in given.split(",")]
