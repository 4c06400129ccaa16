"""Check and parse the options of a runtime in a model's config."""

import os
from collections.abc import Mapping, Sequence

from triune.core.errors import InvalidArgumentError
from triune.core.requests import Parameter

_WORDS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def check_names(runtime: str, options: Mapping[str, Parameter], known: Sequence[str]) -> None:
    """Refuse unknown options.

    Raises:
        InvalidArgumentError: an option is not in `known`.
    """
    for name in options:
        if name not in known:
            raise InvalidArgumentError(
                f"backend '{runtime}' knows no parameter '{name}'; it knows {', '.join(known) or 'none'}"
            )


def boolean(name: str, value: Parameter) -> bool:
    """Parse a boolean: 1 or 0, true or false, yes or no, in any case.

    Raises:
        InvalidArgumentError: the value is anything else.
    """
    try:
        return _WORDS[str(value).strip().lower()]
    except KeyError:
        raise InvalidArgumentError(f"parameter '{name}' is {value!r}; write 1 or 0") from None


_LEAST_MOST_THREADS = 64
_THREADS_PER_CORE = 4


def num_threads(name: str, value: Parameter) -> int:
    """Parse a number of threads; 0 means the default. It is limited, since starting thousands takes minutes.

    Raises:
        InvalidArgumentError: the value is not an integer, or larger than max(64, 4 * cores).
    """
    number = integer(name, value)
    num_cores = os.cpu_count() or 1
    most = max(_LEAST_MOST_THREADS, _THREADS_PER_CORE * num_cores)
    if number > most:
        raise InvalidArgumentError(
            f"parameter '{name}' is {value!r}; at most {most} threads are started on this machine, which has "
            f"{num_cores} cores: write fewer, or 0, which leaves the number to Triune"
        )
    return number


def integer(name: str, value: Parameter, *, at_least: int = 0) -> int:
    """Parse an integer of at least `at_least`.

    Raises:
        InvalidArgumentError: the value is anything else.
    """
    try:
        number = int(str(value).strip())
    except ValueError:
        number = at_least - 1
    if number < at_least:
        raise InvalidArgumentError(f"parameter '{name}' is {value!r}; write an integer of at least {at_least}")
    return number


def choice(name: str, value: Parameter, allowed: Sequence[str]) -> str:
    """Parse one of `allowed`, which are upper case; the value may have any case.

    Raises:
        InvalidArgumentError: the value is anything else.
    """
    word = str(value).strip().upper()
    if word not in allowed:
        raise InvalidArgumentError(f"parameter '{name}' is {value!r}; write one of {', '.join(allowed)}")
    return word
