"""Parse Triton's `--backend-config`: settings of backends."""

from collections.abc import Sequence

from triune.core.errors import InvalidArgumentError


def read_backend_config(given: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Parse values of Triton's `--backend-config`: `BACKEND,SETTING=VALUE`, or `SETTING=VALUE` for all backends.

    The backend `*` means all backends, too.

    Returns:
        `default-max-batch-size` by backend ("" for all), and the values with other settings, unchanged.

    Raises:
        InvalidArgumentError: a value is malformed, or the size is not an integer of at least 0.
    """
    sizes: dict[str, int] = {}
    others: list[str] = []
    for each in given:
        left, equals, value = each.partition("=")
        backend, comma, setting = left.partition(",")
        if not comma:
            backend, setting = "", left
        if not (equals and setting and value) or (comma and not backend):
            raise InvalidArgumentError(
                "--backend-config option format is '<backend name>,<setting>=<value>' or '<setting>=<value>'. "
                f"Got {each}"
            )
        if setting != "default-max-batch-size":
            others.append(each)
            continue
        if not (value.isascii() and value.isdigit() and int(value) < 2**31):
            raise InvalidArgumentError(f"--backend-config={each}: {setting} must be an integer from 0 to 2147483647")
        sizes["" if backend == "*" else backend] = int(value)
    return sizes, others
