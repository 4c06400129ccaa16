from dataclasses import dataclass, field

from triune.frontends.kserve.grpc.relay.turns import NUM_AHEAD, Turns


@dataclass(eq=False)
class Connection:
    """Wants to open calls."""

    turns: Turns
    wanted: int
    is_closed: bool = False
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
