from dataclasses import dataclass, field

from triune.frontends.kserve.grpc.relay.turns import NUM_AHEAD, NUM_ENDED, NUM_ENDED_KNOWN, Turns


@dataclass(eq=False)
class Connection:
    """Wants to open calls."""

    turns: Turns
    wanted: int
    is_gone: bool = False
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

    def has_left(self) -> bool:
        return self.is_gone

    def ended_arrived(self) -> None:
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
    assert turns.end(call, connection)
    assert not turns.end(call, connection)
    assert len(connection.opened) == NUM_AHEAD + 1
    for _ in range(2):
        turns.arrive(call)
        assert (connection.num_arrived_late, len(connection.opened)) == (1, NUM_AHEAD + 1)


def test_connections_that_have_left_lose_their_turn() -> None:
    turns = Turns()
    first, second, third = (Connection(turns, 1000) for _ in range(3))
    for each in (first, second, third):
        each.open()
    second.is_gone = True
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


def end_calls(turns: Turns, count: int, *, is_known: bool) -> list[int]:
    """Open and end a call on each of `count` connections. Returns the calls."""
    calls: list[int] = []
    for _ in range(count):
        leaving = Connection(turns, 1, is_known=is_known)
        leaving.open()
        calls += leaving.opened
        assert turns.end(calls[-1], leaving)
    return calls


def test_calls_that_have_ended_fill_the_librarys_queue_only_so_far() -> None:
    turns = Turns()
    ended = end_calls(turns, NUM_ENDED, is_known=False)
    stranger = Connection(turns, 1)
    stranger.open()
    assert not stranger.opened
    ended += end_calls(turns, NUM_ENDED_KNOWN - NUM_ENDED, is_known=True)
    known = Connection(turns, 1, is_known=True)
    known.open()
    assert not known.opened
    turns.forget(ended[0])
    turns.forget(ended[0])
    assert (len(stranger.opened), len(known.opened)) == (0, 1)
    for each in ended[1 : NUM_ENDED_KNOWN - NUM_ENDED]:
        turns.arrive(each)
    assert not stranger.opened
    turns.arrive(ended[NUM_ENDED_KNOWN - NUM_ENDED])
    assert len(stranger.opened) == 1


def test_ended_calls_have_left_the_library_when_much_later_ones_arrive() -> None:
    turns = Turns()
    leaving = Connection(turns, 1)
    leaving.open()
    assert turns.end(leaving.opened[0], leaving)
    connection = Connection(turns, 1000)
    connection.open()
    while not leaving.num_arrived_late:
        turns.arrive(connection.opened[-NUM_AHEAD])
    assert NUM_AHEAD + NUM_ENDED < len(connection.opened) < 1000
    turns.forget(leaving.opened[0])
    assert leaving.num_arrived_late == 1


def test_a_call_that_arrived_is_not_counted_when_it_ends() -> None:
    turns = Turns()
    connection = Connection(turns, 1)
    connection.open()
    turns.arrive(connection.opened[0])
    assert not turns.end(connection.opened[0], connection)
