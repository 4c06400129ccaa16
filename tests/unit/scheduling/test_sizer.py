"""The sizer against servers of known behaviour, in closed loops of virtual time."""

import pytest

from triune.scheduling.sizer import BatchSizer

NUM_CLIENTS = 32


def closed_loop(
    sizer: BatchSizer, *, launch: int, row: int, answer: int, crowding: float = 0, num_batches: int = 400
) -> tuple[float, int]:
    """Clients that send again once answered; the front end takes `answer` for each, beside what is computed.

    A row costs `row` and the part `crowding` more for each other row of its batch.

    Returns:
        rows a unit of time in the second half, and the size of the batches that had the most rows of it.
    """
    now = busy = 0
    arrivals = [0] * NUM_CLIENTS
    sizes: list[int] = []
    middle = 0
    for index in range(num_batches):
        arrivals.sort()
        now = max(now, arrivals[0])
        num_waiting = sum(each <= now for each in arrivals)
        size = sizer.choose(num_waiting)
        assert 1 <= size <= num_waiting
        sizer.record_start(size, now, busy)
        busy = launch + int(row * size * (1 + crowding * (size - 1)))
        now += busy
        arrivals = arrivals[size:] + [now + answer * (place + 1) for place in range(size)]
        sizes.append(size)
        if index == num_batches // 2:
            middle = now
    late = sizes[num_batches // 2 + 1 :]
    return sum(late) / (now - middle), max(set(late), key=lambda size: size * late.count(size))


class TakeAll(BatchSizer):
    def choose(self, num_rows: int) -> int:
        return num_rows


CROWDED = {"launch": 300, "row": 100, "answer": 1, "crowding": 0.02}
DEAR = {"launch": 5000, "row": 10, "answer": 1}


def test_large_batches_are_left_where_they_are_slower() -> None:
    rate, size = closed_loop(BatchSizer(), **CROWDED)
    assert rate > 1.1 * closed_loop(TakeAll(), **CROWDED)[0]
    assert size <= 16


def test_everything_goes_at_once_where_launching_is_dear() -> None:
    rate, size = closed_loop(BatchSizer(), **DEAR)
    assert size > 16
    assert rate > 0.9 * closed_loop(TakeAll(), **DEAR)[0]


def test_among_equals_everything_goes() -> None:
    assert closed_loop(BatchSizer(), launch=0, row=100, answer=0)[1] == NUM_CLIENTS


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5, 31, 33])
def test_never_more_than_waits(num_rows: int) -> None:
    sizer = BatchSizer()
    for now in range(0, 200_000, 1000):
        size = sizer.choose(num_rows)
        assert 1 <= size <= num_rows
        sizer.record_start(size, now, 500)


def test_it_changes_its_mind_when_the_load_does() -> None:
    sizer = BatchSizer()
    assert closed_loop(sizer, **DEAR)[1] > 16
    assert closed_loop(sizer, **CROWDED, num_batches=4000)[1] <= 16
    assert closed_loop(sizer, **DEAR, num_batches=4000)[1] > 16


def run(sizer: BatchSizer, costs: dict[int, int], num_batches: int, *, waited: int = 0) -> list[int]:
    """The sizes of batches while 32 rows always wait, each of a cost for a row, and with `waited` between them."""
    now, busy, sizes = 0, 0, []
    for _ in range(num_batches):
        size = sizer.choose(32)
        sizer.record_start(size, now, busy, waited)
        busy = costs[size] * size
        now += busy + waited
        sizes.append(size)
    return sizes


EIGHT_IS_BEST = {4: 120, 8: 100, 16: 110, 32: 112}


def test_a_size_whose_first_measurements_were_wrong_is_found() -> None:
    sizer = BatchSizer()
    # Something else slowed all batches of 8 down while they were new.
    run(sizer, EIGHT_IS_BEST | {8: 190}, 13)
    assert run(sizer, EIGHT_IS_BEST, 400)[-50:].count(8) > 40


def test_sizes_that_cost_much_are_tried_rarely() -> None:
    sizes = run(BatchSizer(), {4: 800, 8: 400, 16: 200, 32: 100}, 2000)[100:]
    assert sizes.count(4) >= 2
    rows, cost = sum(sizes), sum({4: 800, 8: 400, 16: 200, 32: 100}[size] * size for size in sizes)
    assert cost / rows < 102


def test_waiting_for_a_turn_is_no_part_of_a_size() -> None:
    """Otherwise batches would grow, so that fewer of them wait."""
    sizes = run(BatchSizer(), EIGHT_IS_BEST, 400, waited=20_000)
    assert sizes[-100:].count(8) > 80
