"""`triune.simulate`: what Triune's scheduler would do with recorded or random requests on a chip. All results are
simulated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Final

from onnx import ModelProto

from triune.api.planning import opened_graph, ops_for
from triune.config.configure import configure, read_source
from triune.config.ensemble.steps import is_ensemble
from triune.config.limits import DEFAULT_LIMITS
from triune.config.objective import objective_of
from triune.config.policy import BatchingPolicy
from triune.config.stamps import Stamp
from triune.config.turns import weight_of
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.units import Unit
from triune.graph.conversion.shapes import inputs_of
from triune.hardware.chips import chip as chip_of
from triune.planning.constants import constants as fitted
from triune.planning.units import Target, target_of
from triune.repository.finding import find_models
from triune.runtimes.machine import this_machine
from triune.simulation.arrivals import parse_stream, synthetic
from triune.simulation.profile import Profile, profile_of
from triune.simulation.report import Simulation, capacity, simulated
from triune.simulation.trace import Arrival, read_trace

_OTHERS: Final = ("ensemble_scheduling", "model_transaction_policy.decoupled")
"""Fields in configs of ensembles and text models. Models with such a field are refused."""


def simulate(
    repository: Path | str | Sequence[Path | str],
    *,
    chip: str,
    trace: Path | str | None = None,
    arrivals: Sequence[str] = (),
    seconds: float = 10.0,
    seed: int = 0,
    load: float | None = None,
    models: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    compare: bool = True,
    report: Callable[[str], None] | None = None,
) -> Simulation:
    """Run Triune's own scheduler for a chip on a virtual clock, where each batch takes its predicted time.

    Args:
        repository: one or more model repositories, with all models of the trace.
        chip: "m2-pro", "M4 Max".
        trace: a trace, as `triune serve --record` writes; or `arrivals`.
        arrivals: random requests, such as "minilm=poisson:200": to a model, at a mean rate a second.
        seconds: how long random requests arrive.
        seed: the seed of random requests.
        load: scales the rates of all random requests by one factor, so that together they are this fraction of what the
            chip can compute at most. None keeps the rates.
        models: the models whose requests are taken from a trace; empty for all.
        sizes: the sizes of free dimensions other than the batch dimension, by their name in the model files, such as
            {"tokens": 128}.
        compare: whether to run the requests also by simpler scheduling rules, to compare.
        report: called with a message at each step.

    Raises:
        NotFoundError: there is no such chip, model or trace.
        InvalidArgumentError: an option, the trace or a model is wrong, or a size is missing.
        UnsupportedError: a model cannot be simulated.
    """
    target = target_of(chip_of(chip), fitted())
    tell = report or _tell_nobody
    if (trace is None) == (not arrivals):
        raise InvalidArgumentError("give either a trace (--trace) or random arrivals (--arrivals), not both")
    if trace is not None and load is not None:
        raise InvalidArgumentError("a load (--load) is for random arrivals (--arrivals): a trace has its own")
    streams = [parse_stream(each) for each in arrivals]
    if repeated := {each.model for each in streams if sum(other.model == each.model for other in streams) > 1}:
        raise InvalidArgumentError(f"arrivals of '{min(repeated)}' are given twice; give each model one rate")
    found: list[Arrival] = []
    if trace is not None:
        found = _only(read_trace(Path(trace)), models, Path(trace))
    names = sorted({each.model for each in (found or streams)})
    folders = [repository] if isinstance(repository, Path | str) else repository
    profiles = _profiles([Path(each) for each in folders], names, target, sizes or {}, tell)
    if load is not None:
        factor = load * capacity(profiles, target, {each.model: each.per_second * each.num_rows for each in streams})
        streams = [replace(each, per_second=each.per_second * factor) for each in streams]
    found = found or synthetic(streams, seconds, seed)
    tell("simulating")
    began_ns = found[0].at_ns
    checked = [_checked(replace(each, at_ns=each.at_ns - began_ns), profiles[each.model], target) for each in found]
    return simulated(checked, profiles, target, fitted(), is_compared=compare)


def _only(found: list[Arrival], models: Sequence[str], trace: Path) -> list[Arrival]:
    """Of the requests in `found`, those to `models`; all if `models` is empty. Raises NotFoundError if one of them
    has no request.
    """
    present = {each.model for each in found}
    if lacking := [name for name in models if name not in present]:
        raise NotFoundError(f"trace {trace} has no request to '{lacking[0]}'; it has {', '.join(sorted(present))}")
    return [each for each in found if each.model in models] if models else found


def _profiles(
    folders: Sequence[Path], names: Sequence[str], target: Target, sizes: Mapping[str, int], tell: Callable[[str], None]
) -> dict[str, Profile]:
    known = find_models(folders)
    if lacking := [name for name in names if name not in known]:
        raise NotFoundError(
            f"the repository has no model '{lacking[0]}'; it has {', '.join(sorted(known)) or 'none'} (--model leaves "
            "out the others of a trace)"
        )
    machine = this_machine()
    profiles: dict[str, Profile] = {}
    for name in names:
        tell(f"planning {name}")
        if known[name].problem:
            raise InvalidArgumentError(f"model '{name}': {known[name].problem}")
        source = read_source(name, known[name].folders[0], Stamp(), supports=lambda _: _OTHERS)
        backend = source.message.backend
        kind = "ensemble" if is_ensemble(source.message) else backend
        if kind and kind not in machine.runtimes:
            raise UnsupportedError(
                f"model '{name}' cannot be simulated: its backend is {kind}, and only models that a runtime compiles "
                "are simulated; --model leaves the others of a trace out"
            )
        config = configure(source, source.versions[-1], machine)
        policy = replace(config.batching, queue_limits=DEFAULT_LIMITS.queue)
        with opened_graph(config.path) as model:
            row = _shapes(name, model, policy, 1, sizes)
            elements = sum(prod(dims) for dims in row.values())

            def ops_at(num_rows: int, model: ModelProto = model, name: str = name, policy: BatchingPolicy = policy):
                return ops_for(model, _shapes(name, model, policy, num_rows, sizes))

            weight, objective_ns = weight_of(config.message), objective_of(config.parameters)
            profiles[name] = profile_of(name, policy, elements, ops_at, target, weight, objective_ns)
    return profiles


def _shapes(
    name: str, model: ModelProto, policy: BatchingPolicy, num_rows: int, sizes: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's inputs for a batch of `num_rows` rows."""
    shapes: dict[str, tuple[int, ...]] = {}
    lacking: dict[str, None] = {}
    for value in inputs_of(model.graph):
        dims: list[int] = []
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            key = dim.dim_param or f"{value.name}.{axis}"
            if axis == 0 and policy.max_batch_size > 0:
                dims.append(num_rows)
            elif dim.dim_value or key in sizes:
                dims.append(dim.dim_value or sizes[key])
            else:
                lacking[key] = None
        shapes[value.name] = tuple(dims)
    if lacking:
        options = " ".join(f"--size {each}=128" for each in lacking)
        raise InvalidArgumentError(f"model '{name}' has free dimensions: give their sizes, such as {options}")
    return shapes


def _checked(arrival: Arrival, profile: Profile, target: Target) -> Arrival:
    """Check a request as the server would, and return it."""
    if arrival.num_rows > profile.max_rows:
        raise InvalidArgumentError(
            f"a request to '{profile.name}' has {arrival.num_rows} rows, and the server refuses more than "
            f"{profile.max_rows}, its max_batch_size; change either"
        )
    unit = arrival.unit
    if unit is Unit.CPU and Unit.AMX in profile.costs:
        # Take a request for "cpu" as one for "amx": Apple's CPUs compute matrix products on their matrix units, so
        # there are no costs for "cpu" alone.
        unit = Unit.AMX
    if unit is not None and unit not in profile.costs:
        served = ", ".join(each.value for each in profile.costs)
        raise InvalidArgumentError(
            f"a request to '{profile.name}' asks for {unit.value}, and on {target.name} the model is served on {served}"
        )
    return replace(arrival, unit=unit)


def _tell_nobody(what: str) -> None:
    del what
