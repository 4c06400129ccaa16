"""Checks the Host and Origin headers of requests to a loopback port, against attacks by web pages.

A page of any site can send requests to ports of the machine on which it is shown. It cannot read the answers of another
site, but there are two ways around that. In DNS rebinding, the page's host name is made to resolve to this machine, so
that the browser treats the port as the page's own site. In cross-site request forgery, the request itself does harm,
and the page need not read the answer. A page cannot choose the headers Host and Origin, which show both.

Sources: the names that a browser asks public DNS for have a dot, and do not end with .localhost (RFC 6761), .local
(RFC 6762) or .internal (ICANN's resolution 2024.07.29.06); the order of the checks of Origin is that of Go's
`http.CrossOriginProtection`; Ollama checks Host likewise where it listens on a loopback address.
"""

import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from triune.core.errors import InvalidArgumentError
from triune.core.printable import printable

ANY_HOST = "*"
"""A name that means any host: no header is checked."""

_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_SAFE_METHODS = (b"GET", b"HEAD", b"OPTIONS")
_OWN_PAGES = (b"same-origin", b"none")
_SHOWN_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class OwnHosts:
    """The names by which requests may call a port.

    Attributes:
        names: further names in lower case, besides those that public DNS does not resolve.
    """

    names: frozenset[str]

    @classmethod
    def of(cls, address: str, more: Collection[str]) -> "OwnHosts | None":
        """The names of a port; None if its requests are not checked, because the address is not a loopback address,
        or any name is allowed.

        Args:
            address: the address that the port listens on.
            more: further names, such as that of a proxy in front. If there are any, requests to addresses other than
                loopback are checked, too.

        Raises:
            InvalidArgumentError: one of `more` is not a name.
        """
        for name in more:
            if name != ANY_HOST and (not name or _name_of(name) != name.lower()):
                raise InvalidArgumentError(
                    f"the allowed host '{printable(name)}' is not a name: give it without scheme, port and path, such "
                    f"as models.example.com, or {ANY_HOST} for any"
                )
        if ANY_HOST in more or not (more or _is_of_this_machine(address)):
            return None
        return cls(frozenset((socket.gethostname().lower(), *(name.lower() for name in more))))

    def problem(self, method: bytes, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """The reason why a request is refused; None if it is accepted.

        Args:
            method: the request's method.
            headers: the request's headers, with names in lower case.
        """
        host = site = b""
        origins: list[bytes] = []
        for name, value in headers:
            if name == b"host":
                host = value
            elif name == b"origin":
                origins.append(value)
            elif name == b"sec-fetch-site":
                site = value
        own = _name_of(host.decode("latin-1"))
        if not self._is_own(own) and _ip(own) is None:
            shown = printable(own[:_SHOWN_CHARACTERS])
            return (
                f"the request's Host header names '{shown}', which is not a name of this server; a page in a browser "
                f"may have sent it (DNS rebinding). Use 127.0.0.1 or localhost, or start the server with "
                f"--allowed-host {shown}"
            )
        if method in _SAFE_METHODS or site in _OWN_PAGES:
            return None
        for origin in origins:
            if not self._is_own_page(origin.decode("latin-1"), own):
                shown = printable(origin[:_SHOWN_CHARACTERS].decode("latin-1"))
                return (
                    f"the request comes from a page of '{shown}', which is another site; if that page may use this "
                    "server, start it with --allowed-host and the name of its host"
                )
        return None

    def _is_own(self, name: str) -> bool:
        """Whether a name is one of the server's, or one that public DNS does not resolve."""
        return "." not in name or name.endswith(_LOCAL_SUFFIXES) or name in self.names

    def _is_own_page(self, origin: str, own: str) -> bool:
        """Whether an origin is this server (which the Host header calls `own`), another server on this machine, or a
        program.
        """
        scheme, separator, rest = origin.partition("://")
        if scheme.lower() not in ("http", "https"):
            # Accept an origin with another scheme, which only extensions and programs send. Refuse "null", which a
            # browser sends if it hides the site.
            return bool(separator)
        name = _name_of(rest)
        return name == own or name in self.names or _is_of_this_machine(name)


def _name_of(host: str) -> str:
    """The name or address of a Host header or of an origin, without the port, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition("/")[0].partition(":")[0].removesuffix(".")


def _is_of_this_machine(name: str) -> bool:
    """Whether a name or an address can be used only by programs on the same machine."""
    ip = _ip(name)
    return name == "localhost" or name.endswith(".localhost") if ip is None else ip.is_loopback


def _ip(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None
