"""How many tokens of texts run together."""

from triune.core.units import Unit
from triune.engine.encoder_steps import MAX_TOKENS, MIN_TOKENS, STEP_NS, StepSize, steps_of


def test_steps_take_as_long_as_they_may_on_the_slowest_unit() -> None:
    steps = StepSize([Unit.CPU, Unit.AMX])
    assert steps.num_tokens() == MAX_TOKENS, "nobody shares it"
    steps.share()
    assert MIN_TOKENS < steps.num_tokens() < MAX_TOKENS
    steps.record(Unit.CPU, 1000, STEP_NS)
    assert steps.num_tokens() == 1000
    steps.record(Unit.AMX, 1000, STEP_NS // 2)
    assert steps.num_tokens() == 1000
    for _ in range(40):
        steps.share()
        steps.record(Unit.CPU, 1000, STEP_NS // 100)
    assert steps.num_tokens() == MAX_TOKENS, "the slowest would compute twice as many"
    for _ in range(20):
        steps.share()
        steps.record(Unit.AMX, 1000, STEP_NS * 100)
    assert steps.num_tokens() == MIN_TOKENS
    for _ in range(30):
        steps.record(Unit.AMX, 1000, STEP_NS * 100)
    assert steps.num_tokens() == MIN_TOKENS
    steps.record(Unit.AMX, 1000, STEP_NS * 100)
    assert steps.num_tokens() == MAX_TOKENS, "others have not come for long"


def test_a_few_tokens_are_no_measure() -> None:
    steps = StepSize([Unit.CPU])
    steps.share()
    before = steps.num_tokens()
    steps.record(Unit.CPU, 3, STEP_NS)
    assert steps.num_tokens() == before


def test_the_size_of_a_step_is_asked_when_it_begins() -> None:
    size = 10
    steps = steps_of([5] * 7, lambda: size)
    assert len(next(steps)) == 2
    size = 20
    assert len(next(steps)) == 4
