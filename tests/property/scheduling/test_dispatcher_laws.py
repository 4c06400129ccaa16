"""Whatever happens in whatever order: every request gets exactly its own answer, and the books balance."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from support.examples import examples
from support.hand import POISON, Bench
from triune.config.policy import QueuePolicy, TimeoutAction
from triune.core.errors import TriuneError, UnavailableError
from triune.core.statistics import FailureReason

policies = st.fixed_dictionaries(
    {
        "is_dynamic": st.booleans(),
        "max_batch_size": st.integers(4, 8),
        "max_queue_delay_us": st.sampled_from([0, 500]),
        "preferred_batch_sizes": st.sampled_from([(), (2,), (2, 4)]),
        "preserve_ordering": st.booleans(),
        "num_priority_levels": st.sampled_from([0, 2]),
        "is_fair": st.booleans(),
        "max_elements": st.sampled_from([None, 6]),
        "objective_ns": st.sampled_from([0, 1, 5000]),
        "ragged_inputs": st.sampled_from([frozenset[str](), frozenset({"x"})]),
        "default_queue_policy": st.builds(
            QueuePolicy,
            st.sampled_from(TimeoutAction),
            st.sampled_from([0, 700]),
            st.booleans(),
            st.sampled_from([0, 5]),
        ),
    }
)
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("send"),
            st.integers(1, 4),
            st.integers(1, 3),
            st.integers(0, 3),
            st.sampled_from([0, 300]),
            st.booleans(),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("finish"), st.integers(0, 2)),
        st.tuples(st.just("advance"), st.integers(1, 1_000_000)),
        st.tuples(st.just("turn")),
    ),
    max_size=40,
)


@examples(300)
@given(policy=policies, num_workers=st.integers(1, 3), script=steps)
def test_books_balance(policy: dict[str, Any], num_workers: int, script: list[tuple[Any, ...]]) -> None:
    asyncio.run(play(policy, num_workers, script))


async def play(policy: dict[str, Any], num_workers: int, script: list[tuple[Any, ...]]) -> None:
    bench = Bench(num_workers, **policy)
    sent: list[tuple[float, int, int, asyncio.Future[Any]]] = []
    num_refused = 0
    for step in script:
        match step:
            case ("send", rows, length, priority, timeout_us, is_poisoned):
                value = POISON if is_poisoned else float(len(sent) + 1)
                try:
                    sent.append((value, rows, length, bench.send(value, rows, length, priority, timeout_us)))
                except UnavailableError:
                    num_refused += 1
            case ("cancel", index) if sent:
                sent[index % len(sent)][3].cancel()
            case ("finish", index):
                worker = bench.workers[index % num_workers]
                if worker.current:
                    worker.finish(1000)
            case ("advance", delta_ns):
                bench.clock.advance(delta_ns)
            case ("turn",):
                await asyncio.sleep(0)
            case _:
                pass
    for _ in range(4 * len(sent) + 1):  # With an objective, each of up to four rows may be computed by itself.
        bench.clock.advance(10_000_000)
        for worker in bench.workers:
            if worker.current:
                worker.finish()
        await asyncio.sleep(0)
    counted = dict.fromkeys(("answered", "cancelled", "failed"), 0)
    for value, rows, length, future in sent:
        assert future.done(), "a request was lost"
        if future.cancelled():
            counted["cancelled"] += 1
        elif error := future.exception():
            assert isinstance(error, TriuneError)
            assert isinstance(error, UnavailableError) or value == POISON, "a request paid for another's mistake"
            counted["failed"] += 1
        else:
            y = future.result().outputs["y"]
            assert y.shape == (rows, length)
            assert (y == 2 * value).all(), "a request got another's answer"
            counted["answered"] += 1
    statistics = bench.statistics
    assert statistics.num_pending == 0
    assert statistics.success.count == counted["answered"]
    assert statistics.failures[FailureReason.CANCELED] == counted["cancelled"]
    assert statistics.fail.count == counted["cancelled"] + counted["failed"] + num_refused
