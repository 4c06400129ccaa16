"""Limits in bytes that environment variables set: child processes and programs that import Triune have them, too."""

import os
from collections.abc import Mapping
from typing import Final

from triune.core.errors import InvalidArgumentError

FOLDED: Final = "TRIUNE_FOLDED_BYTES"
CACHE: Final = "TRIUNE_CACHE_BYTES"
_FOLDED_DEFAULT: Final = 256 << 20
_CACHE_DEFAULT: Final = 32 << 30


def folded_bytes(environment: Mapping[str, str] = os.environ) -> int:
    """The most bytes that may be computed of one model's constants when it is loaded or converted, beyond what its own
    constants take: $TRIUNE_FOLDED_BYTES, else 256 MiB. A causal mask of 4096 tokens in fp32 takes 64 MiB.

    Raises:
        InvalidArgumentError: the variable is not a number of bytes.
    """
    return _bytes(FOLDED, _FOLDED_DEFAULT, environment)


def cache_bytes(environment: Mapping[str, str] = os.environ) -> int:
    """The most bytes that converted, compiled and optimized models in the cache folder may take together:
    $TRIUNE_CACHE_BYTES, else 32 GiB.

    Raises:
        InvalidArgumentError: the variable is not a number of bytes.
    """
    return _bytes(CACHE, _CACHE_DEFAULT, environment)


def check_byte_settings(environment: Mapping[str, str] = os.environ) -> None:
    """Raises InvalidArgumentError if an environment variable of this module is not a number of bytes."""
    folded_bytes(environment)
    cache_bytes(environment)


def _bytes(name: str, default: int, environment: Mapping[str, str]) -> int:
    text = environment.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise InvalidArgumentError(
            f"the environment variable {name} is '{text[:40]}'; set it to a number of bytes, such as {default}"
        )
    return int(text)
