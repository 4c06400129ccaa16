"""L0_model_queue: queue policies. Triton's delays of seconds are shorter here; batches and their order tell."""

import re
from collections.abc import Callable, Iterator

import pytest
import tritonclient.grpc

from support.ensembles import ensemble, write_ensemble
from support.process import Served, serve
from support.repositories import write_model
from support.triton_qa import Asked, cases_of, held, metrics

triton = cases_of("L0_model_queue/model_queue_test.py::")
DELAY = "max_queue_delay_microseconds: 4000000"
SIZES = "preferred_batch_size: [ 4, 8 ]"
LATE = "Request timeout expired"
HALF_A_SECOND = 250_000
"""Turns of a held model."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("queues"), "--model-control-mode=explicit") as running:
        yield running


@pytest.fixture(params=["alone", "in an ensemble"])
def ask(served: Served, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Asked]]:
    asked: list[Asked] = []

    def load(batching: str) -> Asked:
        name = re.sub(r"\W", "_", request.node.name)
        config = f"max_batch_size: 32 instance_group [ {{ count: 1 }} ] dynamic_batching {{ {batching} }}"
        write_model(served.repository, name, config, v1=held())
        model = name
        if request.param != "alone":
            model = f"ensemble_{name}"
            one = [(name, {"INPUT0": "INPUT0"}, {"OUTPUT0": "OUTPUT0"})]
            write_ensemble(served.repository, model, ensemble(one, ["INPUT0"], ["OUTPUT0"], dims=-1, max_batch_size=32))
        with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
            client.load_model(model)
        asked.append(Asked(served, model, name))
        return asked[-1]

    yield load
    for each in asked:
        each.close()


def num_rejected(served: Served, asked: Asked) -> int:
    """Of the model; an ensemble that asks it says OTHER."""
    numbers: list[int] = []
    for model, reason in (
        (asked.queue, "REJECTED"),
        (asked.model, "REJECTED" if asked.model == asked.queue else "OTHER"),
    ):
        line = f'nv_inference_request_failure{{model="{model}",reason="{reason}",version="1"}} (\\d+)'
        found = re.search(line, metrics(served))
        assert found, "labels in Triton's order"
        numbers.append(int(found[1]))
    assert numbers[0] == numbers[1]
    return numbers[0]


@triton("test_max_queue_size")
def test_two_more_than_may_wait(served: Served, ask: Callable[[str], Asked]) -> None:
    asked = ask(f"{SIZES} default_queue_policy {{ max_queue_size: 8 }}")
    asked.send(8, value=4 * HALF_A_SECOND)
    asked.wait_past(300)
    numbers = [asked.send(1) for _ in range(10)]
    asked.wait(*numbers[8:])
    assert sorted(asked.order) == numbers[8:], "they are told at once"
    asked.wait()
    assert sorted(asked.errors) == numbers[8:]
    assert all("Exceeds maximum queue size" in each for each in asked.errors.values())
    assert num_rejected(served, asked) == 2


def late_then_two(served: Served, asked: Asked, **options: int) -> tuple[int, list[int]]:
    """A request that will be late, and two that come after it is: their numbers."""
    late = asked.send(1, **options)
    asked.until_waiting(served, 1)
    asked.wait_past(300)
    return late, [asked.send(2), asked.send(2)]


@triton("test_policy_delay")
def test_a_late_request_lets_others_go_first(served: Served, ask: Callable[[str], Asked]) -> None:
    policy = "default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 100000 }"
    asked = ask(f"{SIZES} {DELAY} {policy}")
    late, others = late_then_two(served, asked)
    asked.wait()
    assert (asked.order[-1], sorted(asked.order[:2]), asked.errors) == (late, others, {})
    assert asked.batches() == {4: 1, 1: 1}


@triton("test_policy_reject")
def test_a_late_request_is_refused(served: Served, ask: Callable[[str], Asked]) -> None:
    asked = ask(f"{SIZES} {DELAY} default_queue_policy {{ default_timeout_microseconds: 100000 }}")
    late, _ = late_then_two(served, asked)
    asked.wait()
    assert asked.order[0] == late
    assert list(asked.errors) == [late]
    assert LATE in asked.errors[late]
    assert asked.batches() == {4: 1}
    assert num_rejected(served, asked) == 1


@triton("test_timeout_override")
@pytest.mark.parametrize("timeout_us", [100_000, 10_000_000, 0])
def test_a_requests_own_timeout(served: Served, ask: Callable[[str], Asked], timeout_us: int) -> None:
    policy = "default_queue_policy { allow_timeout_override: true default_timeout_microseconds: 1000000 }"
    asked = ask(f"{SIZES} {DELAY} {policy}")
    late, _ = late_then_two(served, asked, **({"timeout": timeout_us} if timeout_us else {}))
    asked.wait()
    # A longer one does not count: the five of them are no preferred size, and wait for its end.
    assert list(asked.errors) == [late]
    assert LATE in asked.errors[late]
    waited = re.search(r"waited (\d+)", asked.errors[late])
    assert waited is not None
    assert int(waited[1]) >= (100 if timeout_us == 100_000 else 1000)
    assert asked.batches() == {4: 1}


@pytest.mark.parametrize(
    ("levels", "default"),
    [
        pytest.param(2, 2, marks=triton("test_priority_levels")),
        pytest.param(2**64 - 1, 2**32, marks=triton("test_max_priority_levels")),
    ],
)
def test_priorities(served: Served, ask: Callable[[str], Asked], levels: int, default: int) -> None:
    asked = ask(f"{SIZES} {DELAY} priority_levels: {levels} default_priority_level: {default}")
    first = asked.send(2)
    asked.until_waiting(served, 1)
    last = asked.send(1, priority=default)
    asked.until_waiting(served, 2)
    second = asked.send(2, priority=1)
    asked.wait()
    assert asked.errors == {}
    assert (sorted(asked.order[:2]), asked.order[2]) == ([first, second], last)
    assert asked.batches() == {4: 1, 1: 1}


@triton("test_priority_with_policy")
def test_priorities_with_policies_of_their_own(served: Served, ask: Callable[[str], Asked]) -> None:
    def policy(action: str) -> str:
        return f"timeout_action: {action} allow_timeout_override: true default_timeout_microseconds: 11000000"

    asked = ask(
        f"preferred_batch_size: [ 4, 8, 32 ] {DELAY} priority_levels: 2 default_priority_level: 2 "
        f"default_queue_policy {{ {policy('DELAY')} }} "
        f"priority_queue_policy {{ key: 2 value {{ {policy('REJECT')} }} }}"
    )
    # As they come they make no preferred size: it takes the short timeouts.
    sent: list[int] = []
    for rows, priority, timeout in ((2, 1, 0), (1, 1, 400_000), (2, 1, 0), (2, 2, 900_000), (3, 2, 0), (6, 2, 0)):
        sent.append(asked.send(rows, priority=priority, **({"timeout": timeout} if timeout else {})))
        asked.until_waiting(served, len(sent))
    first, delayed, second, refused, third, last = sent
    asked.wait()
    assert list(asked.errors) == [refused]
    assert LATE in asked.errors[refused]
    order = [each for each in asked.order if each != refused]
    assert sorted(order[:2]) == [first, second]
    assert sorted(order[2:4]) == sorted([delayed, third])
    assert order[4] == last
    assert asked.batches() == {4: 2, 6: 1}
