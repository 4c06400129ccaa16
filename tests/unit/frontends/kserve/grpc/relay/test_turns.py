from dataclasses import dataclass, field

from triune.frontends.kserve.grpc.relay.turns import NUM_AHEAD, NUM_ORPHANS, Turns


@dataclass(eq=False)
class Connection:
    """Wants to open calls."""

    turns: Turns
    wanted: int
    is_closed: bool = False
    is_known: bool = False
    opened: list[int] = field(default_factory=list)
    num_arrived_late: int = 0

    def open(self) -> None:
        while self.wanted:
            call = self.turns.take(self)
            if not call:
                return
            self.take(call)

    def take(self, call: int) -> None:
        self.wanted -= 1
        self.opened.append(call)

    def take_turn(self, call: int) -> None:
        self.take(call)
        self.open()

    def abandoned_arrived(self) -> None:
        self.num_arrived_late += 1


def test_connections_take_turns_while_few_calls_are_on_their_way() -> None:
    turns = Turns()
    greedy, modest = Connection(turns, 1000), Connection(turns, 2)
    greedy.open()
    modest.open()
    assert (len(greedy.opened), len(modest.opened)) == (NUM_AHEAD, 0)
    turns.arrive(greedy.opened[0])
    assert (len(greedy.opened), len(modest.opened)) == (NUM_AHEAD + 1, 0), "it had asked first"
    turns.arrive(greedy.opened[1])
    assert (len(greedy.opened), len(modest.opened)) == (NUM_AHEAD + 1, 1)
    for call in greedy.opened[2:4]:
        turns.arrive(call)
    assert (len(greedy.opened), len(modest.opened)) == (NUM_AHEAD + 2, 2)


def test_a_call_that_arrives_twice_or_ends_after_counts_once() -> None:
    turns = Turns()
    connection = Connection(turns, 1000)
    connection.open()
    call = connection.opened[0]
    turns.arrive(call)
    turns.arrive(call)
    assert not turns.leave(call)
    assert len(connection.opened) == NUM_AHEAD + 1


def test_a_call_that_ends_before_it_arrives_makes_room_and_is_reported_when_it_does() -> None:
    turns = Turns()
    connection = Connection(turns, 1000)
    connection.open()
    call = connection.opened[0]
    assert turns.leave(call)
    turns.abandon(call, connection)
    assert len(connection.opened) == NUM_AHEAD + 1
    for _ in range(2):
        turns.arrive(call)
        assert (connection.num_arrived_late, len(connection.opened)) == (1, NUM_AHEAD + 1)


def test_closed_connections_lose_their_turn() -> None:
    turns = Turns()
    first, second, third = (Connection(turns, 1000) for _ in range(3))
    for each in (first, second, third):
        each.open()
    second.is_closed = True
    turns.arrive(first.opened[0])
    turns.arrive(first.opened[1])
    assert (len(first.opened), second.opened, len(third.opened)) == (NUM_AHEAD + 1, [], 1)


def test_known_connections_come_before_others() -> None:
    turns = Turns()
    first, other = Connection(turns, 1000), Connection(turns, 1)
    first.open()
    other.open()
    known = Connection(turns, 2, is_known=True)
    known.open()
    turns.arrive(first.opened[0])
    turns.arrive(first.opened[1])
    assert (len(known.opened), len(other.opened), len(first.opened)) == (2, 0, NUM_AHEAD)
    turns.arrive(first.opened[2])
    assert len(first.opened) == NUM_AHEAD + 1


def test_calls_of_connections_that_left_fill_the_librarys_queue_only_so_far() -> None:
    turns = Turns()
    orphans: list[int] = []
    for _ in range(NUM_ORPHANS):
        leaving = Connection(turns, 1)
        leaving.open()
        orphans += leaving.opened
        assert turns.orphan(orphans[-1])
        assert not turns.orphan(orphans[-1])
    stranger, known = Connection(turns, 1), Connection(turns, 1, is_known=True)
    stranger.open()
    known.open()
    assert (len(stranger.opened), len(known.opened)) == (0, 1)
    turns.arrive(orphans[0])
    assert len(stranger.opened) == 1
    turns.arrive(orphans[0])
    late = Connection(turns, 1)
    late.open()
    assert late.opened


def test_a_call_that_arrived_is_no_orphan() -> None:
    turns = Turns()
    connection = Connection(turns, 1)
    connection.open()
    turns.arrive(connection.opened[0])
    assert not turns.orphan(connection.opened[0])
