"""What a step holds: who comes first, how prompts are cut, and who gives up blocks."""

import pytest

from triune.core.clock import VirtualClock
from triune.core.errors import InternalError, InvalidArgumentError
from triune.engine.kv.hashes import root_hash
from triune.engine.kv.pool import KVBlockPool
from triune.engine.kv.table import BlockTable
from triune.engine.plan import Plan
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.sampler import FAILED, Sample, SamplingState
from triune.engine.scheduler import Scheduler, SchedulerLimits
from triune.engine.sequence import Ending, FinishReason, Sequence
from triune.engine.turns import FIRST_TURN_TOKENS, TURN_TOKENS


class Bench:
    """A scheduler over blocks of 4 tokens; `run` computes a step in which each sequence chooses token 7."""

    def __init__(self, num_blocks: int = 100, **limits: float) -> None:
        self.clock = VirtualClock()
        self.pool = KVBlockPool(num_blocks)
        self.scheduler = Scheduler(self.pool, 4, self.clock, SchedulerLimits(**limits))  # type: ignore[arg-type]

    def add(self, num_tokens: int, max_tokens: int = 8, priority: int = 0, first: int = 0) -> Sequence:
        prompt = list(range(first, first + num_tokens))
        table = BlockTable(self.pool, 4, root_hash())
        state = SamplingState(SamplingParameters(), prompt)
        made = Sequence(prompt, table, state, Ending(max_tokens), priority, arrived_ns=self.clock.now_ns())
        self.scheduler.add(made)
        return made

    def run(self, sample: Sample | None = None) -> Plan:
        plan = self.scheduler.schedule()
        self.scheduler.update(plan, [[sample or Sample(7)]] * len(plan.choosing))
        self.scheduler.check()
        return plan


def pieces(plan: Plan) -> list[tuple[int, int]]:
    return [(piece.begin, piece.end) for piece in plan.pieces]


def test_a_long_prompt_is_read_in_pieces_beside_others_that_decode() -> None:
    bench = Bench(step_tokens=10)
    short = bench.add(3)
    assert pieces(bench.run()) == [(0, 3)]
    bench.add(25, first=100)
    assert pieces(bench.run()) == [(3, 4), (0, 9)]
    assert pieces(bench.run()) == [(4, 5), (9, 18)]
    plan = bench.run()
    assert pieces(plan) == [(5, 6), (18, 25)]
    assert [piece.has_logits for piece in plan.pieces] == [True, True]
    assert short.num_answered == 4


def test_the_arrays_of_a_step() -> None:
    bench = Bench(step_tokens=9)
    bench.add(3)
    bench.run()
    bench.add(6, first=50)
    bench.add(9, first=90)
    step = bench.scheduler.schedule().step()
    assert step.input_ids.tolist() == [7, 50, 51, 52, 53, 54, 55, 90, 91]
    assert step.position_ids.tolist() == [3, 0, 1, 2, 3, 4, 5, 0, 1]
    assert step.past_lengths.tolist() == [3, 0, 0]
    assert step.subsequence_begins.tolist() == [0, 1, 7, 9]
    assert step.block_indices_begins.tolist() == [0, 1, 3, 4]
    assert len(set(step.block_indices.tolist())) == 4
    assert step.logits_indices.tolist() == [0, 6], "the last prompt is not read to its end"
    step.require_fitting(100, 4)


def test_the_urgent_come_first_and_waiting_makes_urgent() -> None:
    bench = Bench(step_tokens=4, sequences=1, ageing_seconds=1)
    late = bench.add(4, priority=2)
    urgent = bench.add(4, priority=0, first=10)
    assert bench.scheduler.schedule().pieces[0].sequence is urgent
    bench.scheduler.cancel(urgent)
    bench.clock.advance(3 * 10**9)
    bench.add(4, priority=0, first=20)
    assert bench.scheduler.schedule().pieces[0].sequence is late


def test_who_begins_like_another_shares_its_blocks() -> None:
    bench = Bench()
    one = bench.add(10)
    bench.run()
    two = bench.add(10)
    assert pieces(bench.run())[1] == (8, 10)
    assert (one.num_cached_tokens, two.num_cached_tokens) == (0, 8)
    assert one.table.blocks[:2] == two.table.blocks[:2]
    three = bench.add(8)
    bench.run()
    assert three.num_cached_tokens == 4, "the last token is computed in any case"


def test_the_least_urgent_gives_up_its_blocks_and_goes_on_later() -> None:
    bench = Bench(num_blocks=5)
    urgent, other = bench.add(7, max_tokens=10), bench.add(6, max_tokens=10, priority=1, first=50)
    while not other.num_preemptions:
        bench.run()
    assert (bench.scheduler.num_running, bench.scheduler.num_waiting) == (1, 1)
    assert not other.table.blocks
    answered = other.num_answered
    while urgent.finish_reason is None:
        bench.run()
    while other.finish_reason is None:
        bench.run()
    assert 0 < answered < other.num_answered == 10
    assert urgent.num_preemptions == 0
    assert (urgent.finish_reason, other.finish_reason) == (FinishReason.LENGTH, FinishReason.LENGTH)
    assert bench.pool.num_used == 0
    assert not bench.scheduler.schedule().pieces


def test_logits_that_cannot_be_used_end_their_sequence() -> None:
    bench = Bench()
    broken = bench.add(3)
    bench.run(FAILED)
    assert broken.finish_reason is FinishReason.ERROR
    assert isinstance(broken.error, InternalError)
    assert bench.pool.num_used == 0


def test_a_stop_token_ends_a_sequence_but_not_too_early() -> None:
    ending = Ending(5, frozenset({7}), min_tokens=2)
    bench = Bench()
    table = BlockTable(bench.pool, 4, root_hash())
    sequence = Sequence([1], table, SamplingState(SamplingParameters(), [1]), ending)
    bench.scheduler.add(sequence)
    for _ in range(3):
        assert sequence.finish_reason is None
        bench.run()
    assert (sequence.finish_reason, sequence.tokens) == (FinishReason.STOP, [1, 7, 7, 7])


def test_what_can_never_be_computed_is_refused() -> None:
    bench = Bench(num_blocks=5, context_tokens=50)
    with pytest.raises(InvalidArgumentError, match="the prompt has no token"):
        bench.add(0)
    with pytest.raises(InvalidArgumentError, match="together 51; that is more than the context of 50"):
        bench.add(10, max_tokens=41)
    with pytest.raises(InvalidArgumentError, match="the cache of 5 blocks holds 20 tokens"):
        bench.add(10, max_tokens=12)
    whole = bench.add(10, max_tokens=11)
    while whole.finish_reason is None:
        bench.run()
    with pytest.raises(InvalidArgumentError, match="max_tokens is 0; it must be 1 or more"):
        Ending(0)
    with pytest.raises(InvalidArgumentError, match="min_tokens is 6; it must be between 0 and max_tokens, 5"):
        Ending(5, min_tokens=6)


def test_what_a_failed_sequence_computed_is_not_shared() -> None:
    bench = Bench()
    bench.add(9)
    bench.run(FAILED)
    assert bench.pool.num_cached == 0
    bench.add(9)
    assert pieces(bench.run()) == [(0, 9)]


def test_answers_without_end_give_a_newcomer_its_turn() -> None:
    bench = Bench(num_blocks=3000, step_tokens=64, sequences=2)
    first, second = (bench.add(4, max_tokens=1000, first=start) for start in (0, 50))
    bench.run()
    late = bench.add(4, max_tokens=2, first=100)
    for _ in range(FIRST_TURN_TOKENS - 2):
        bench.run()
    assert late.started_ns is None, "a turn is not over before it gave some tokens"
    assert late in [piece.sequence for piece in (*bench.run().pieces, *bench.run().pieces)]
    assert bench.scheduler.num_preempted == 1
    while late.finish_reason is None:
        bench.run()
    bench.run()
    assert bench.scheduler.num_running == 2
    while first.finish_reason is None or second.finish_reason is None:
        bench.run()
    assert first.num_answered == second.num_answered == 1000


def test_one_request_for_many_answers_leaves_a_place_for_another() -> None:
    bench = Bench(num_blocks=3000, step_tokens=64, sequences=4)
    many = [bench.add(4, max_tokens=1000) for _ in range(9)]
    for each in many[1:]:
        each.is_follower = True
    bench.run()
    bench.run()
    others = [bench.add(4, max_tokens=1000, first=start) for start in (50, 90)]
    bench.run()
    assert all(each.num_answered for each in others)
    assert [each.started_ns is None for each in many[:4]] == [False] * 4
    assert bench.scheduler.num_preempted == 2
    for _ in range(10 * FIRST_TURN_TOKENS):
        bench.run()
    assert bench.scheduler.num_preempted == 2, "those that follow take no turns"
    assert many[0].num_answered > 9 * FIRST_TURN_TOKENS


def test_all_answers_without_end_have_turns() -> None:
    bench = Bench(num_blocks=1000, step_tokens=64, sequences=2)
    endless = [bench.add(4, max_tokens=3000, first=100 * at) for at in range(5)]
    for _ in range(12 * TURN_TOKENS):
        bench.run()
    given = [each.num_answered for each in endless]
    assert min(given) > max(given) / 4
    assert bench.scheduler.num_preempted < 12 * TURN_TOKENS / FIRST_TURN_TOKENS


def test_a_newcomer_takes_no_turn_of_a_more_urgent_answer_until_it_has_waited() -> None:
    bench = Bench(num_blocks=3000, step_tokens=64, sequences=1, ageing_seconds=1)
    urgent = bench.add(4, max_tokens=1000)
    late = bench.add(4, priority=2, first=50)
    for _ in range(2 * FIRST_TURN_TOKENS):
        bench.run()
    assert late.started_ns is None
    bench.clock.advance(2 * 10**9)
    bench.run()
    assert late.num_answered == 1
    assert urgent.finish_reason is None


def test_answers_without_end_that_hold_all_blocks_give_a_newcomer_its_turn() -> None:
    bench = Bench(num_blocks=40, step_tokens=64, sequences=8)
    endless = [bench.add(4, max_tokens=120, first=100 * at) for at in range(4)]
    for _ in range(FIRST_TURN_TOKENS):
        bench.run()
    late = bench.add(32, max_tokens=2, first=1000)
    for _ in range(4):
        bench.run()
    assert late.num_answered
    while any(each.finish_reason is None for each in endless):
        bench.run()
    assert [each.num_answered for each in endless] == [120] * 4


def test_no_step_is_planned_ahead_where_a_turn_is_due() -> None:
    bench = Bench(num_blocks=3000, step_tokens=64, sequences=1)
    bench.add(4, max_tokens=1000)
    for _ in range(FIRST_TURN_TOKENS):
        plan = bench.run()
    plan = bench.scheduler.schedule()
    assert bench.scheduler.follow(plan) is not None
    late = bench.add(4, first=50)
    assert bench.scheduler.follow(plan) is None
    assert [piece.sequence for piece in bench.scheduler.schedule().pieces] == [late]


def test_requests_with_many_prompts_take_turns_with_others() -> None:
    bench = Bench(step_tokens=10, ageing_seconds=10)
    many = [bench.add(10, max_tokens=1, first=100 * place) for place in range(5)]
    for place, each in enumerate(many):
        each.place = place
    assert [piece.sequence for piece in bench.run().pieces] == [many[0]]
    bench.clock.advance(1_000_000)
    other = bench.add(10, max_tokens=1, first=1000)
    order = [bench.run().pieces[0].sequence for _ in range(5)]
    assert order == [other, *many[1:]], "its first prompt goes before the further ones of another request"


def test_further_prompts_of_a_request_do_not_wait_for_ever() -> None:
    bench = Bench(step_tokens=10, ageing_seconds=1)
    late = bench.add(10, max_tokens=1)
    late.place = 7
    for number in range(1, 5):
        bench.clock.advance(400_000_000)
        bench.add(10, max_tokens=1, first=100 * number)
        bench.run()
        if late.finish_reason is not None:
            break
    assert number == 3, "after a second it is more urgent"
