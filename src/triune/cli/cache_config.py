"""Parse Triton's `--cache-config`: how much memory the response cache takes."""

from collections.abc import Sequence

from triune.core.errors import InvalidArgumentError, UnsupportedError


def cache_bytes(configs: Sequence[str], byte_size: int | None) -> int | None:
    """The size of the response cache in bytes; None for no cache.

    Args:
        configs: the values of `--cache-config`, `local,size=N`.
        byte_size: Triton's older `--response-cache-byte-size`.

    Raises:
        InvalidArgumentError: a value is malformed, the size is not a number above 0, or both flags are given.
        UnsupportedError: the cache is not `local`, or the setting is unknown.
    """
    if configs and byte_size is not None:
        raise InvalidArgumentError("give --cache-config or --response-cache-byte-size, not both")
    size = byte_size
    for each in configs:
        name, comma, setting = each.partition(",")
        key, equals, value = setting.partition("=")
        if not (name and comma and key and equals and value):
            raise InvalidArgumentError(
                f"--cache-config option format is '<cache name>,<setting>=<value>'. Got '{each}'; "
                "write local,size=BYTES"
            )
        if name != "local":
            raise UnsupportedError(f"--cache-config={each}: this version has the cache 'local' alone, in memory")
        if key != "size":
            raise UnsupportedError(f"--cache-config={each}: the cache 'local' has the setting 'size' alone")
        if not (value.isascii() and value.isdigit() and 0 < int(value) < 2**63):
            raise InvalidArgumentError(f"--cache-config={each}: size must be a number of bytes above 0")
        size = int(value)
    return size or None
