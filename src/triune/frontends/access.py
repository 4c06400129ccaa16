"""Access control: which header a caller must send to call an endpoint. By default, every endpoint is open.

There are two kinds of rules. An API key (`Authorization: Bearer KEY`) protects all endpoints but the health checks.
Triton's restricted protocols protect some APIs with a separate header and value, instead of the API key. Source:
Triton's `restricted_features.h`, `http_server.cc` and `grpc_server.cc`; the error messages are Triton's.
"""

import hmac
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from triune.core.errors import InvalidArgumentError, RestrictedError, TriuneError, UnauthenticatedError
from triune.frontends.hosts import OwnHosts


class Api(Enum):
    """The APIs that can be restricted, with Triton's names; only `metrics` and `power` are Triune's."""

    HEALTH = "health"
    METADATA = "metadata"
    INFERENCE = "inference"
    SHARED_MEMORY = "shared-memory"
    MODEL_CONFIG = "model-config"
    MODEL_REPOSITORY = "model-repository"
    STATISTICS = "statistics"
    TRACE = "trace"
    LOGGING = "logging"
    METRICS = "metrics"
    POWER = "power"


_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_GRPC_PREFIX = "triton-grpc-protocol-"
CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}
"""The HTTP header that every answer of status 401 has: it tells which scheme the server takes."""

_BEARER = f"{CHALLENGE['WWW-Authenticate']} "


@dataclass(frozen=True, slots=True)
class Rule:
    """A header that a caller must send, and the values that are accepted.

    Attributes:
        header: the header's name, in lower case.
        scheme: the prefix of the value, compared without case: "Bearer " for an API key, else "".
        digests: the SHA-256 of each accepted key.
        protocol: "API" or "protocol", as Triton's error message calls it; empty for an API key.
    """

    header: str
    scheme: str
    digests: tuple[bytes, ...] = field(repr=False)
    protocol: str = ""

    def check(self, values: Collection[str | bytes]) -> None:
        """Check a caller's header, in constant time.

        Args:
            values: all values of the header in the request, in any order. Different values are refused, since a proxy
                may have read another value than this server.

        Raises:
            UnauthenticatedError: an API key is missing or wrong.
            RestrictedError: the header of a restricted API is missing or wrong.
        """
        if not values:
            raise self._refusal("the server asks for an API key")
        given, *others = [each.encode(errors="replace") if isinstance(each, str) else each for each in values]
        if any(each != given for each in others):
            raise self._refusal(f"the request has {len(values)} different API keys")
        scheme = self.scheme.encode()
        has_scheme = given[: len(scheme)].lower() == scheme.lower()
        digest = sha256(given[len(scheme) :].strip()).digest()
        # Compare with every key, so that the time does not reveal which one matched.
        is_right = sum([hmac.compare_digest(digest, each) for each in self.digests]) > 0
        if not (has_scheme and is_right):
            raise self._refusal("the API key is not one that the server takes")

    def _refusal(self, reason: str) -> TriuneError:
        if self.protocol:
            return RestrictedError(f"This {self.protocol} is restricted, expecting header '{self.header}'")
        return UnauthenticatedError(f"{reason}: send the header 'Authorization: Bearer KEY'")


Rules = Mapping[Api, Rule]
"""The rules of one port. An API without a rule is open."""

OPEN: Rules = MappingProxyType({})
"""No rules: every caller may call every API."""


@dataclass(frozen=True, slots=True)
class Access:
    """The access rules of a server.

    Attributes:
        http: the rules of the HTTP port and of the metrics port.
        grpc: the rules of the gRPC port.
        hosts: names by which requests may call the HTTP port and the metrics port, beside those of the machine: see
            `OwnHosts`.
    """

    http: Rules = field(default_factory=dict[Api, Rule])
    grpc: Rules = field(default_factory=dict[Api, Rule])
    hosts: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        keys: Iterable[str] = (),
        http: Sequence[str] = (),
        grpc: Sequence[str] = (),
        hosts: Sequence[str] = (),
    ) -> "Access":
        """Make the rules from the values of the command line's options.

        Args:
            keys: the API keys; any of them is accepted. Without keys, no API key is needed.
            http: values of Triton's --http-restricted-api, `APIS:HEADER=VALUE`.
            grpc: values of Triton's --grpc-restricted-protocol, `PROTOCOLS:KEY=VALUE`.
            hosts: see `Access.hosts`.

        Raises:
            InvalidArgumentError: a key is empty or has characters that a header cannot carry; or a restriction is
                malformed, or names an API that is unknown or already restricted. The message contains no key and no
                value.
        """
        asked = _key_rules(tuple(keys))
        return cls({**asked, **_restrictions(http, "api")}, {**asked, **_restrictions(grpc, "protocol")}, tuple(hosts))

    def own_hosts(self, address: str) -> OwnHosts | None:
        """The names by which requests may call a port that listens on `address`; None for any.

        Names protect against pages in a browser. Such pages do not know API keys, so a server with keys checks names
        only if `hosts` is not empty. Raises InvalidArgumentError as `OwnHosts.of` does.
        """
        is_open = any(api not in self.http for api in Api if api is not Api.HEALTH)
        return OwnHosts.of(address, self.hosts) if is_open or self.hosts else None


def _key_rules(keys: Sequence[str]) -> dict[Api, Rule]:
    for number, key in enumerate(keys, 1):
        if not key or not all("!" <= each <= "~" for each in key):
            raise InvalidArgumentError(
                f"API key {number} of {len(keys)} is empty, or has characters that a header does not carry; "
                "use letters, digits and signs of ASCII"
            )
    if not keys:
        return {}
    rule = Rule("authorization", _BEARER, tuple(_digest(key) for key in keys))
    return {api: rule for api in Api if api is not Api.HEALTH}


def _restrictions(texts: Sequence[str], kind: str) -> dict[Api, Rule]:
    """Parse restrictions. `kind` is "api" for HTTP or "protocol" for gRPC, as in Triton's error messages."""
    option = "--http-restricted-api" if kind == "api" else "--grpc-restricted-protocol"
    known = {each.value: each for each in Api if kind == "api" or each not in (Api.METRICS, Api.POWER)}
    rules: dict[Api, Rule] = {}
    for text in texts:
        names, colon, pair = text.partition(":")
        key, equals, value = pair.partition("=")
        if not (names and colon and key and equals and value):
            shown = names if colon and equals else "..."
            raise InvalidArgumentError(f"{option} is of the form <{kind}s>:<key>=<value>; '{shown}:...' is not")
        if not _NAME.fullmatch(key) or not _VALUE.fullmatch(value):
            raise InvalidArgumentError(
                f"{option}={names}:...: no client could send this: a header's name takes letters, digits and signs "
                "such as -, its value printable ASCII"
            )
        header = (key if kind == "api" else f"{_GRPC_PREFIX}{key}").lower()
        rule = Rule(header, "", (_digest(value),), "API" if kind == "api" else "protocol")
        for name in names.split(","):
            if name not in known:
                raise InvalidArgumentError(f"unknown restricted {kind} '{name}'; there are {', '.join(known)}")
            if known[name] in rules:
                raise InvalidArgumentError(
                    f"restricted {kind} '{name}' can not be specified in multiple config groups; name it once"
                )
            rules[known[name]] = rule
    return rules


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()
