"""L0_batcher: which requests go together, told by the statistics. Triton's delay of 10 s is one of 2 s here."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
import tritonclient.grpc

from support.process import Served, serve
from support.repositories import write_model
from support.triton_qa import Asked, cases_of, held, zero

triton = cases_of("L0_batcher/batcher_test.py::")
DELAY_MS = 2000
MANY_TURNS = 250_000
"""Of a held model: half a second, in which requests are sent."""

DELAYED = f"preferred_batch_size: [ 2, 6 ] max_queue_delay_microseconds: {DELAY_MS * 1000}"
PREFERRED = "preferred_batch_size: [ 4, 6 ]"
CONFIGS = {
    "delayed": DELAYED,
    "delayed_two": DELAYED,
    # Requests behind a held model wait for less than that where the machine is much slower, too.
    "delayed_long": f"preferred_batch_size: [ 2, 6 ] max_queue_delay_microseconds: {4 * DELAY_MS * 1000}",
    "preferred": PREFERRED,
    "ordered": "preferred_batch_size: [ 4 ] preserve_ordering: true",
    "only_delay": f"max_queue_delay_microseconds: {DELAY_MS * 1000}",
    "no_delay": "",
    "timed": "default_queue_policy { default_timeout_microseconds: 200000 }",
}
MAX_BATCH_SIZES = {"only_delay": 16, "no_delay": 16}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("batched"), "--model-control-mode=explicit") as running:
        yield running


@pytest.fixture
def ask(served: Served) -> Iterator[Callable[..., Asked]]:
    """Load a model of a kind of config, its statistics at zero; `is_ragged` lets rows differ."""
    asked: list[Asked] = []

    def load(kind: str, *, is_ragged: bool = False) -> Asked:
        config = f"max_batch_size: {MAX_BATCH_SIZES.get(kind, 8)} dynamic_batching {{ {CONFIGS[kind]} }}"
        if is_ragged:
            config += ' input [ { name: "INPUT0" data_type: TYPE_FP32 dims: -1 allow_ragged_batch: true } ]'
        model = zero(num_tensors=2) if "two" in kind else held()
        write_model(served.repository, kind, config, v1=model)
        with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
            with contextlib.suppress(Exception):
                client.unload_model(kind)
            client.load_model(kind)
        asked.append(Asked(served, kind))
        return asked[-1]

    yield load
    for each in asked:
        each.close()


def hold(asked: Asked, rows: int, turns: int = MANY_TURNS) -> None:
    """Keep the model busy with a batch that goes at once, in place of TRITONSERVER_DELAY_SCHEDULER."""
    asked.send(rows, value=turns)
    asked.wait_past(100)


@triton("test_static_batch_preferred")
def test_preferred_sizes_go_at_once(ask: Callable[..., Asked]) -> None:
    asked = ask("delayed")
    asked.wait(asked.send(2))
    asked.wait(asked.send(6))
    assert asked.batches() == {2: 1, 6: 1}
    assert asked.waited_ms() < DELAY_MS


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(1, marks=triton("test_static_batch_lt_any_preferred")),
        pytest.param(3, marks=triton("test_static_batch_not_preferred")),
    ],
)
def test_other_sizes_wait(ask: Callable[..., Asked], rows: int) -> None:
    asked = ask("delayed")
    asked.wait(asked.send(rows))
    assert asked.batches() == {rows: 1}
    assert asked.waited_ms() >= DELAY_MS


@triton("test_static_batch_gt_max_preferred")
def test_more_than_any_preferred_size_goes_at_once(ask: Callable[..., Asked]) -> None:
    asked = ask("delayed")
    asked.wait(asked.send(7))
    assert asked.batches() == {7: 1}
    assert asked.waited_ms() < DELAY_MS


@triton("test_multi_batch_different_shape_allow_ragged")
def test_ragged_rows_go_together(ask: Callable[..., Asked]) -> None:
    asked = ask("delayed", is_ragged=True)
    asked.send(1, width=16)
    asked.send(1, width=8)
    asked.wait()
    assert asked.batches() == {2: 1}


@triton("test_multi_batch_different_shape")
def test_another_shape_sends_the_first_off(ask: Callable[..., Asked]) -> None:
    asked = ask("delayed")
    asked.send(1, width=16)
    asked.send(1, width=8)
    asked.wait()
    assert asked.batches() == {1: 2}
    assert asked.waited_ms() < 2 * DELAY_MS, "the first went at once"


def test_other_shapes_wait_for_their_own_as_triune_has_it(ask: Callable[..., Asked]) -> None:
    asked = ask("delayed")
    asked.send(1, width=16)
    asked.send(1, width=8)
    asked.send(1, width=16)
    asked.wait()
    assert asked.batches() == {1: 1, 2: 1}


@triton("test_multi_batch_not_preferred")
def test_what_is_between_preferred_sizes_waits_together(ask: Callable[..., Asked]) -> None:
    asked = ask("delayed")
    asked.send(1)
    asked.send(3)
    asked.wait()
    assert asked.batches() == {4: 1}
    assert asked.waited_ms() >= DELAY_MS


@triton("test_multi_batch_not_preferred_different_shape")
def test_another_shape_sends_a_batch_off(ask: Callable[..., Asked]) -> None:
    asked = ask("delayed")
    asked.send(1)
    asked.send(3)
    asked.send(1, width=8)
    asked.wait()
    assert asked.batches() == {1: 1, 4: 1}
    assert asked.waited_ms() < 2 * DELAY_MS, "those of the first shape went at once"


@triton("test_multi_batch_preferred_different_shape")
def test_another_shape_that_makes_a_preferred_size(ask: Callable[..., Asked]) -> None:
    asked = ask("delayed")
    asked.send(1)
    asked.send(3)
    asked.send(1, width=8)
    asked.send(5, width=8)
    asked.wait()
    assert asked.batches() == {4: 1, 6: 1}
    assert asked.waited_ms() < DELAY_MS, "all went at once"


@triton("test_multi_batch_gt_max_preferred")
def test_one_that_does_not_fit_sends_off_what_waits(served: Served, ask: Callable[..., Asked]) -> None:
    asked = ask("delayed")
    asked.send(3)
    asked.until_waiting(served, 1)
    asked.send(7)
    asked.wait()
    assert asked.batches() == {3: 1, 7: 1}
    assert asked.waited_ms() < DELAY_MS


@triton("test_multi_batch_sum_gt_max_preferred", "test_multi_batch_delayed_sum_gt_max_preferred")
def test_a_sum_beyond_the_preferred_sizes_is_parted(served: Served, ask: Callable[..., Asked]) -> None:
    asked = ask("delayed")
    first = asked.send(3)
    asked.until_waiting(served, 1)
    second = asked.send(4)
    asked.wait()
    assert asked.batches() == {3: 1, 4: 1}
    assert asked.order == [first, second]
    assert asked.waited_ms() >= DELAY_MS, "the second waits for more"


@pytest.mark.parametrize(
    "outputs",
    [
        pytest.param([("OUTPUT0",)] * 2, marks=triton("test_multi_same_output0")),
        pytest.param([("OUTPUT1",)] * 2, marks=triton("test_multi_same_output1")),
        pytest.param([("OUTPUT0",), ("OUTPUT1",)], marks=triton("test_multi_different_outputs")),
        pytest.param(
            [("OUTPUT0", "OUTPUT1"), ("OUTPUT1", "OUTPUT0")], marks=triton("test_multi_different_output_order")
        ),
    ],
)
def test_requests_for_other_outputs_go_together(ask: Callable[..., Asked], outputs: list[tuple[str, ...]]) -> None:
    asked = ask("delayed_two")
    for each in outputs:
        asked.send(1, value=1.0, outputs=each)
    asked.wait()
    assert asked.errors == {}
    assert asked.batches() == {2: 1}


@triton("test_multi_batch_delayed_use_max_batch")
def test_what_waited_for_too_long_goes_with_what_fits(served: Served, ask: Callable[..., Asked]) -> None:
    asked = ask("delayed")
    hold(asked, 7, turns=15 * MANY_TURNS)
    asked.send(3)
    asked.send(4)
    asked.until_waiting(served, 2)
    time.sleep(DELAY_MS / 1000)
    asked.send(1)
    asked.wait()
    assert asked.batches() == {7: 1, 8: 1}


@triton("test_multi_batch_delayed_preferred_different_shape")
def test_two_shapes_that_wait(served: Served, ask: Callable[..., Asked]) -> None:
    asked = ask("delayed")
    hold(asked, 8)
    for rows, width in ((1, 16), (3, 16), (1, 8), (5, 8)):
        asked.send(rows, width=width)
    asked.wait()
    assert asked.batches() == {8: 1, 4: 1, 6: 1}


@pytest.mark.parametrize(
    ("kind", "num_requests", "batches"),
    [
        pytest.param("delayed", 6, {6: 1}, marks=triton("test_multi_batch_use_biggest_preferred")),
        pytest.param("delayed_long", 3, {2: 1, 1: 1}, marks=triton("test_multi_batch_use_best_preferred")),
        pytest.param("ordered", 12, {4: 3}, marks=triton("test_multi_batch_preserve_ordering")),
        pytest.param("preferred", 4, {4: 1}, marks=triton("test_preferred_batch_only_aligned")),
        pytest.param("preferred", 5, {4: 1, 1: 1}, marks=triton("test_preferred_batch_only_unaligned")),
        pytest.param("preferred", 7, {6: 1, 1: 1}, marks=triton("test_preferred_batch_only_use_biggest_preferred")),
        pytest.param("preferred", 3, {3: 1}, marks=triton("test_preferred_batch_only_use_no_preferred_size")),
    ],
)
def test_requests_that_wait(
    served: Served, ask: Callable[..., Asked], kind: str, num_requests: int, batches: dict[int, int]
) -> None:
    asked = ask(kind)
    hold(asked, 8)
    for _ in range(num_requests):
        asked.send(1)
    asked.wait()
    assert asked.errors == {}
    assert asked.batches() == {8: 1, **batches}
    if kind == "ordered":
        assert asked.order == sorted(asked.order)


@pytest.mark.parametrize(
    ("kind", "num_executions"),
    [
        pytest.param("only_delay", (1, 2), marks=triton("test_max_queue_delay_only_non_default")),
        pytest.param("no_delay", (2,), marks=triton("test_max_queue_delay_only_default")),
    ],
)
def test_twelve_requests(ask: Callable[..., Asked], kind: str, num_executions: tuple[int, ...]) -> None:
    asked = ask(kind)
    for _ in range(12):
        asked.send(1, value=MANY_TURNS)
    asked.wait()
    statistics = asked.statistics()
    assert (statistics.inference_count, statistics.inference_stats.success.count) == (12, 12)
    assert statistics.execution_count in num_executions


TIMEOUT = "Request timeout expired"


def expire(served: Served, ask: Callable[..., Asked]) -> str:
    asked = ask("timed")
    hold(asked, 8, turns=5 * MANY_TURNS)
    late = asked.send(1)
    asked.wait(late)
    assert asked.order == [late], "it is told before the model is free"
    return asked.errors[late]


@pytest.mark.triton("L0_batcher/queue_timeout_test.py::test_default_queue_policy_timeout_prompt_response")
def test_a_timeout_is_told_at_once(served: Served, ask: Callable[..., Asked]) -> None:
    assert expire(served, ask) == TIMEOUT


def test_a_timeout_is_told_at_once_as_triune_has_it(served: Served, ask: Callable[..., Asked]) -> None:
    assert expire(served, ask).startswith(f"{TIMEOUT}: the request waited 2")


def test_the_config_is_what_was_written(served: Served, ask: Callable[..., Asked]) -> None:
    ask("delayed")
    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        batching = client.get_model_config("delayed").config.dynamic_batching
    assert list(batching.preferred_batch_size) == [2, 6]
    assert batching.max_queue_delay_microseconds == DELAY_MS * 1000
