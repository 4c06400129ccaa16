from triune.arbiter.arbiter import Arbiter
from triune.core.clock import VirtualClock
from triune.core.units import Unit
from triune.frontends.metrics.text import write_text
from triune.frontends.metrics.turns import turns

MS = 1_000_000


def test_how_long_models_waited_and_how_many_compute_at_once() -> None:
    clock = VirtualClock()
    arbiter = Arbiter(clock)
    first = arbiter.join("first", [Unit.CPU, Unit.GPU], lambda: None)
    second = arbiter.join("second", [Unit.AMX], lambda: None)[Unit.AMX]
    turn = first[Unit.CPU].start(Unit.CPU, 5 * MS)
    assert turn is not None
    assert second.start(Unit.AMX, 5 * MS) is None
    clock.advance(250 * MS)
    first[Unit.CPU].end(turn, 5 * MS)
    lines = write_text(each for each in turns(arbiter.pools) if each.samples).splitlines()
    assert [each for each in lines if not each.startswith("#")] == [
        'triune_pool_level{pool="cpu"} 1',
        'triune_pool_level{pool="gpu"} 1',
        'triune_turn_wait_seconds_total{model="first",pool="cpu"} 0.0',
        'triune_turn_wait_seconds_total{model="second",pool="cpu"} 0.25',
        'triune_turn_wait_seconds_total{model="first",pool="gpu"} 0.0',
        'triune_turn_waits_total{model="first",pool="cpu"} 0',
        'triune_turn_waits_total{model="second",pool="cpu"} 1',
        'triune_turn_waits_total{model="first",pool="gpu"} 0',
    ]
