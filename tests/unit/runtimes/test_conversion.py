"""Conversions within limits of time and memory."""

import functools
import time

import pytest

from triune.core.errors import UnavailableError
from triune.runtimes.conversion import convert_within


@pytest.mark.parametrize("remedy", ["", "lower the parameter 'context_tokens'"])
def test_a_conversion_that_takes_too_long_is_told_with_the_remedy(remedy: str) -> None:
    with pytest.raises(UnavailableError) as found:
        convert_within(functools.partial(time.sleep, 60), "it", seconds=0.5, remedy=remedy, memory_bytes=None)
    assert f"{found.value}".endswith(remedy)
    assert "0.5 s" in f"{found.value}"
