"""The latency objective of a config."""

import pytest

from triune.config.objective import OBJECTIVE_PARAMETER, objective_of
from triune.core.errors import InvalidArgumentError


def test_milliseconds_become_nanoseconds() -> None:
    assert objective_of({}) == 0
    assert objective_of({OBJECTIVE_PARAMETER: "50"}) == 50_000_000
    assert objective_of({OBJECTIVE_PARAMETER: "0.25"}) == 250_000


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e7", "fast", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="latency_objective_ms' is .*above 0 and up to 1,000,000, as 50"):
        objective_of({OBJECTIVE_PARAMETER: text})
