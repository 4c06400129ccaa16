"""Whatever arrives at whatever chip: each request is answered once or refused, and no schedule beats the bounds."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from support.simulated import MS, chip, model
from triune.core.units import Unit
from triune.simulation.optimum import Optimum
from triune.simulation.run import play, rules_of
from triune.simulation.trace import Arrival

times = st.tuples(st.sampled_from([0.0, 0.3, 2.0]), st.sampled_from([0.1, 1.0, 4.0]))
units = st.lists(st.sampled_from([Unit.AMX, Unit.GPU, Unit.ANE]), min_size=1, unique=True)
models = st.tuples(units, st.lists(times, min_size=3, max_size=3), st.sampled_from([0, 1, 4, 6]), st.integers(0, 90))
requests = st.lists(
    st.tuples(st.integers(0, 3 * MS), st.integers(0, 1), st.integers(1, 6), st.booleans()), min_size=1, max_size=40
)


@settings(max_examples=30, deadline=None)
@given(made=st.lists(models, min_size=2, max_size=2), sent=requests)
def test_requests_are_answered_once_and_no_bound_is_beaten(made: list[tuple], sent: list[tuple]) -> None:
    profiles = {
        name: model(name, dict(zip(served, ms, strict=False)), max_batch_size=most, megabytes=megabytes)
        for name, (served, ms, most, megabytes) in zip("ab", made, strict=True)
    }
    at_ns, trace = 0, list[Arrival]()
    for gap_ns, which, num_rows, asks in sent:
        at_ns += gap_ns
        profile = profiles["ab"[which]]
        unit = next(iter(profile.costs)) if asks else None
        trace.append(Arrival(at_ns, profile.name, min(num_rows, profile.max_rows), unit))
    used = {each.model: profiles[each.model] for each in trace}
    optimum = Optimum(used, lambda unit: unit, 100.0)
    arrived = Counter((each.model, each.at_ns, each.num_rows) for each in trace)
    for rule in rules_of(used):
        schedule = play(trace, used, chip(100.0), rule)
        answered = Counter(
            (each.model, *request)
            for each in schedule.batches
            for request in zip(each.arrived_ns, each.request_rows, strict=True)
        )
        assert answered <= arrived
        assert answered.total() == schedule.num_answered
        assert schedule.num_answered + schedule.num_refused == len(trace)
        for each in schedule.batches:
            assert each.num_rows == sum(each.request_rows) <= used[each.model].max_rows
            assert max(each.arrived_ns) <= each.started_ns < each.ended_ns
        last_ns = max(each.ended_ns for each in schedule.batches)
        done = sorted((at, name, rows) for (name, at, rows), number in answered.items() for _ in range(number))
        assert optimum.last_ns(done) <= last_ns + len(schedule.batches), "each batch may end a nanosecond early"
        assert play(trace, used, chip(100.0), rule).batches == schedule.batches
