"""A model's latency objective: how long its requests should take at most, from arrival to answer."""

import math
from collections.abc import Mapping
from typing import Final

from triune.core.errors import InvalidArgumentError

OBJECTIVE_PARAMETER: Final = "latency_objective_ms"
"""The config parameter for the objective in ms, such as "50". Batches are made small enough to meet it, and among the
units that meet it, the one with the fewest joules computes.
"""

_MOST_MS: Final = 1e6


def objective_of(parameters: Mapping[str, str]) -> int:
    """Read the latency objective in nanoseconds; 0 if the config has none.

    Raises:
        InvalidArgumentError: the objective is not a number of milliseconds above 0, up to a million.
    """
    text = parameters.get(OBJECTIVE_PARAMETER)
    if text is None:
        return 0
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = math.nan
    if not 0 < milliseconds <= _MOST_MS:
        raise InvalidArgumentError(
            f"parameter '{OBJECTIVE_PARAMETER}' is {text!r:.100}; write a number of milliseconds above 0 and up to "
            f"{_MOST_MS:,.0f}, as 50"
        )
    return max(1, int(milliseconds * 1e6))
