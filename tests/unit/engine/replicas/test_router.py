"""Which replica takes an answer, by figures alone."""

from dataclasses import replace

from triune.core.units import Unit
from triune.engine.replicas.rates import Rates
from triune.engine.replicas.router import Asked, Outlook, choose

MS = 1_000_000


def outlook(unit: Unit, prompt_ms: float, answer_ms: float, *, beside: float = 1.0, **fields: int) -> Outlook:
    """A unit that reads 100 tokens of a prompt in `prompt_ms`, and takes `answer_ms` for a token of up to 8 answers;
    `beside` times as long while another one computes.
    """
    rates = Rates(100)
    for is_beside, factor in ((False, 1.0), (True, beside)):
        for count in (1, 100):
            rates.record(count, 0, round(factor * prompt_ms * MS * count / 100), is_beside=is_beside)
        for count in (1, 8):
            rates.record(0, count, round(factor * answer_ms * MS), is_beside=is_beside)
    return Outlook(unit, rates, **fields)


ASKED = Asked(100, 1, 50)


def place(outlooks: list[Outlook], asked: Asked = ASKED) -> int:
    choice = choose(outlooks, asked)
    assert choice.place == choice.then
    return choice.place


CPU, AMX = outlook(Unit.CPU, 100, 10), outlook(Unit.AMX, 20, 10)


def test_the_faster_one_takes_it() -> None:
    assert place([CPU, AMX]) == 1
    assert choose([CPU, AMX], ASKED).reason == ("'amx' was expected to finish it first, in 0.52 s; 'cpu' in 0.6 s")


def test_tokens_that_wait_before_it_count() -> None:
    assert place([CPU, replace(AMX, num_prompt_tokens=300, num_answers=3, num_left=150)]) == 1
    assert place([CPU, replace(AMX, num_prompt_tokens=600, num_answers=6, num_left=300)]) == 0


def test_a_prompt_in_the_cache_need_not_be_read() -> None:
    assert place([replace(CPU, num_cached=96), AMX]) == 0
    assert "with 96 tokens of the prompt in its cache" in choose([replace(CPU, num_cached=96), AMX], Asked(100)).reason


def test_a_full_replica_is_waited_for_only_if_that_is_sooner() -> None:
    full = replace(AMX, num_answers=4, max_answers=4, num_left=400)
    assert place([CPU, full]) == 0
    assert place([outlook(Unit.CPU, 100, 20), full]) == 1


def test_an_idle_unit_that_would_slow_the_other_down_stays_idle() -> None:
    cpu = outlook(Unit.CPU, 100, 10, beside=2)
    busy = replace(outlook(Unit.AMX, 20, 10, beside=2), num_answers=8, num_left=400, num_prompt_tokens=2000)
    alone = replace(outlook(Unit.AMX, 20, 10), num_answers=8, num_left=400, num_prompt_tokens=2000)
    asked = Asked(100, 1, 20)
    assert place([cpu, busy], asked) == 1, "eight answers would lose more than one gains"
    assert "'cpu' in 0.6 s, which delays answers of another unit by " in choose([cpu, busy], asked).reason
    assert place([cpu, alone], asked) == 0, "they share nothing"


def test_what_was_never_measured_is_tried() -> None:
    assert place([CPU, Outlook(Unit.GPU, Rates(100))]) == 1


def test_the_only_one_takes_it() -> None:
    assert choose([CPU], Asked(100)).reason == "'cpu' is the only unit that can take it now"


def reader(unit: Unit, prompt_ms: float, answer_ms: float, copy_ms: float) -> Outlook:
    found = outlook(unit, prompt_ms, answer_ms)
    found.rates.out_ns = found.rates.in_ns = copy_ms * MS / 100
    return found


def test_one_unit_reads_and_another_goes_on_where_that_pays() -> None:
    fast_reader, fast_writer = reader(Unit.ANE, 20, 20, 1), reader(Unit.GPU, 400, 5, 1)
    choice = choose([fast_reader, fast_writer], Asked(100, 1, 50), can_part=True)
    assert (choice.place, choice.then) == (0, 1)
    assert choice.reason == (
        "'ane' reads the prompt and 'gpu' goes on: that was expected to take 0.272 s, and 0.65 s on one unit"
    )
    alone = choose([fast_reader, fast_writer], Asked(100, 1, 50))
    assert alone.place == alone.then == 1
    moved = choose([fast_reader, fast_writer], Asked(0, 1, 50), can_part=True)
    assert moved.place == moved.then == 1, "nothing is to be read"


def test_a_dear_move_or_a_small_gain_does_not_pay() -> None:
    for units in (
        [reader(Unit.ANE, 20, 20, 300), reader(Unit.GPU, 400, 5, 300)],
        [reader(Unit.ANE, 20, 20, 1), reader(Unit.GPU, 45, 5, 1)],
    ):
        choice = choose(units, Asked(100, 1, 50), can_part=True)
        assert choice.place == choice.then
