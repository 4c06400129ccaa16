"""Which requests an engine refuses since others wait."""

import pytest

from triune.config.policy import MIN_WAITING, QueueLimits
from triune.core.clock import VirtualClock
from triune.core.errors import UnavailableError
from triune.core.statistics import ModelStatistics
from triune.engine.admission import Admission


@pytest.mark.parametrize("is_one_request", [True, False])
def test_many_prompts_of_one_request_do_not_have_others_refused(is_one_request: bool) -> None:
    clock, statistics = VirtualClock(), ModelStatistics()
    admission = Admission("m", clock, statistics, 8, QueueLimits(1024, 5.0))
    tickets = [admission.enter(1, place if is_one_request else 0) for place in range(MIN_WAITING + 2)]
    clock.advance(6_000_000_000)
    if is_one_request:
        tickets.append(admission.enter(1))
    else:
        with pytest.raises(UnavailableError, match="wait, the first of them for 6.0 s"):
            admission.enter(1)
    assert statistics.num_waiting == len(tickets)
    for each in tickets:
        admission.leave(each)
    assert statistics.num_waiting == 0
