"""`triune.tune`: try configurations of a served model on this machine, and find the best one."""

import contextlib
import datetime
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from triune.config.configure import Source, configure, read_source
from triune.config.encoder import ENCODER
from triune.config.ensemble.steps import is_ensemble
from triune.config.layout import CONFIG_FILENAME, is_version
from triune.config.model_config import ModelConfig
from triune.config.speech import SPEECH
from triune.config.stamps import Stamp
from triune.config.transformer import TRANSFORMER
from triune.core.clock import MonotonicClock
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.units import Presence, Unit
from triune.graph.custom import CustomOpsGiven, read_custom_ops
from triune.hardware.energy.metering import metered
from triune.hardware.measured import machine_key
from triune.planning.measured import dated, keep_times, model_key
from triune.runtimes.described import known_units, times_folder
from triune.runtimes.machine import Machine, this_machine
from triune.tuning.axes import MAX_BATCH_SIZE, Axis, Candidate, axes_of, changed, describe, is_valid
from triune.tuning.config_text import changes, rewritten
from triune.tuning.measurement import Measurement, Objective
from triune.tuning.report import Tuning
from triune.tuning.search import Found, Search, Trial
from triune.tuning.trial import Subject, units_of
from triune.tuning.trials import Trials

_OTHERS: Final = ("ensemble_scheduling", "model_transaction_policy.decoupled")
"""Fields in configs of ensembles and text models. Models with such a field are refused."""

CALLERS: Final = (1, 4, 16)
"""The default numbers of concurrent requests with which each trial is measured, one number after the other."""
_MAX_CALLERS: Final = 1024
_MAX_BUDGET_SECONDS: Final = 86400.0
_MAX_NAMED: Final = 16
_FEW: Final = 100


def tune(
    model: Path | str,
    *,
    objective: Objective | str = Objective.THROUGHPUT,
    p99_ms: float | None = None,
    budget_seconds: float = 60.0,
    inputs: Path | str | None = None,
    callers: Sequence[int] = CALLERS,
    custom_ops: CustomOpsGiven = (),
    report: Callable[[str, float], None] | None = None,
) -> Tuning:
    """Try configurations of a model on this machine, and find the best one.

    The model is loaded as a server loads it, in a separate process. No config is written. The times of batches are
    stored in the cache folder, where plans for this machine find them.

    Args:
        model: the model's folder in a repository.
        objective: "throughput", "latency" or "joules".
        p99_ms: the time within which 99% of the requests must be answered; None for no limit.
        budget_seconds: the time for all trials.
        inputs: a file written by `numpy.savez` with the inputs by name, whose rows are the requests; None takes the
            config's warm-up sample, or generates numbers.
        callers: the numbers of concurrent requests with which each trial is measured, in ascending order. The objective
            "latency" uses only the first number.
        custom_ops: custom operators (`custom_op`), or files that define them, as of `triune serve`.
        report: the function that is called with what was tried, and with the used fraction of the budget.

    Raises:
        NotFoundError: there is no such model, or no such file of inputs.
        InvalidArgumentError: an argument is wrong, the budget is too small, or the given config cannot be measured.
        UnsupportedError: the model is not one that a runtime compiles, or no meter of this machine counts joules.
    """
    aim = _objective(objective)
    _check(p99_ms, budget_seconds, callers)
    folder = Path(model).absolute()
    source = _read(folder)
    machine = this_machine(custom_ops=read_custom_ops(custom_ops))
    config = configure(source, source.versions[-1], machine)
    units = _metered_units(machine, config.units) if aim is Objective.JOULES else frozenset(Unit)
    axes = axes_of(source.message, config, machine, units)
    file = None if inputs is None else Path(inputs).absolute()
    if file is not None and not file.is_file():
        raise NotFoundError(f"there is no file of inputs '{inputs}'")
    loads = tuple(callers)[:1] if aim is Objective.LATENCY else tuple(callers)
    subject = Subject(
        source.name,
        folder,
        source.versions[-1],
        machine,
        loads,
        file,
        aim is Objective.JOULES,
        units_of(source.message),
    )
    busy = _busy(machine)

    def watch(tried: Trial, share: float) -> None:
        if report is not None:
            what = "failed" if tried.rank is None else f"{tried.rank.level.requests_per_second:,.3g} requests/s"
            report(f"{describe(axes, tried.candidate)}: {what}", share)

    clock = MonotonicClock()
    started_ns = clock.now_ns()
    with contextlib.closing(Trials(subject)) as trials:

        def measure(candidate: Candidate, seconds: float, limit_seconds: float) -> Measurement:
            return trials.measure(changed(source.message, axes, candidate), seconds, limit_seconds)

        def fits(candidate: Candidate) -> bool:
            return is_valid(axes, candidate, config)

        found = Search(axes, fits, measure, aim, p99_ms, budget_seconds, len(loads), clock, watch).run()
    seconds = (clock.now_ns() - started_ns) / 1e9
    unkept = _keep(config.path, found.trials)
    path = folder / CONFIG_FILENAME
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    best = changed(source.message, axes, found.best)
    return Tuning(
        source.name,
        aim,
        p99_ms,
        axes,
        found,
        rewritten(text, source.message, best),
        changes(source.message, best),
        seconds,
        (*busy, *_notes(found, axes, config), *unkept),
    )


def _objective(given: Objective | str) -> Objective:
    try:
        return Objective(given)
    except ValueError:
        known = ", ".join(each.value for each in Objective)
        raise InvalidArgumentError(f"there is no objective '{given}'; choose one of {known}") from None


def _check(p99_ms: float | None, budget_seconds: float, callers: Sequence[int]) -> None:
    if p99_ms is not None and not p99_ms > 0:
        raise InvalidArgumentError(f"a limit of p99 of {p99_ms:g} ms cannot be met; give one above 0")
    if not 0 < budget_seconds <= _MAX_BUDGET_SECONDS:
        raise InvalidArgumentError(
            f"a budget of {budget_seconds:g} s is outside of 0 to {_MAX_BUDGET_SECONDS:g} s; 60 s are usual"
        )
    is_ascending = list(callers) == sorted(set(callers))
    if not callers or not is_ascending or not all(1 <= each <= _MAX_CALLERS for each in callers):
        raise InvalidArgumentError(
            f"{', '.join(map(str, callers)) or 'no'} callers at once cannot be tried; give one or more numbers "
            f"from 1 to {_MAX_CALLERS}, in ascending order"
        )


def _read(folder: Path) -> Source:
    """Read a model's config. Raises the errors of `tune`."""
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "does not exist"
        raise NotFoundError(f"'{folder}' {what}; give a model's folder in a repository{_models_in(folder.parent)}")
    is_model = (folder / CONFIG_FILENAME).is_file() or any(is_version(each.name) for each in folder.iterdir())
    if not is_model:
        raise NotFoundError(
            f"'{folder}' is no model's folder: it has neither {CONFIG_FILENAME} nor a version such as 1/; give one in "
            f"a repository{_models_in(folder)}"
        )
    source = read_source(folder.name, folder, Stamp(), supports=lambda _: _OTHERS)
    backend = "ensemble" if is_ensemble(source.message) else source.message.backend
    if backend in ("ensemble", ENCODER, SPEECH, TRANSFORMER):
        raise UnsupportedError(
            f"model '{source.name}' cannot be tuned: its backend is {backend}, and only models that a runtime compiles "
            "from a file are tuned"
        )
    return source


def _models_in(folder: Path) -> str:
    """The end of an error message: a list of the subfolders of a folder, which may be models."""
    names = sorted(each.name for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    shown = f"{', '.join(names[:_MAX_NAMED])}{' and more' if len(names) > _MAX_NAMED else ''}"
    return f"; '{folder}' has {shown}" if names else ""


def _metered_units(machine: Machine, named: Collection[Unit]) -> frozenset[Unit]:
    """The units whose joules are metered. Raises UnsupportedError if a unit that the config names is not
    metered.
    """
    present = [each.unit for each in machine.units if each.presence is Presence.PRESENT]
    reasons = dict.fromkeys(present, "nothing is metered")
    with metered(machine.units) as ledger:
        if ledger is not None:
            reasons = {unit: ledger.why_unavailable(unit) for unit in present}
    lacking = next((unit for unit in named if reasons.get(unit, "emulated")), None)
    if lacking is not None:
        raise UnsupportedError(
            f"joules cannot be the objective: those of '{lacking.value}', on which the config serves the model, are "
            f"unavailable: {reasons.get(lacking, 'the unit is emulated')}; choose throughput or latency"
        )
    return frozenset(unit for unit in present if not reasons[unit])


def _notes(found: Found, axes: Sequence[Axis], config: ModelConfig) -> list[str]:
    """Notes on the result for the user."""
    notes = list(found.outcome.notes)
    if found.num_left:
        notes.append(f"configs next to the best that were not tried, since the budget was used up: {found.num_left}")
    values = {axis.name: value for axis, value in zip(axes, found.best, strict=True)}
    size, before = int(values.get(MAX_BATCH_SIZE, "0")), config.batching.max_batch_size
    if 0 < size < before:
        notes.append(f"max_batch_size falls from {before} to {size}: requests of more rows will be refused")
    few = [level.num_requests for level in found.outcome.levels if level.num_requests < _FEW]
    if few:
        notes.append(f"a load answered only {min(few)} requests: below {_FEW}, p99 is the longest time")
    return notes


def _keep(path: Path, trials: Sequence[Trial]) -> list[str]:
    """Store the times of batches for plans of the model on this machine (`triune plan`). Returns a note if that
    fails.
    """
    source = f"triune tune, {datetime.datetime.now(tz=datetime.UTC).date().isoformat()}"
    times = dated((time for each in trials for time in each.measurement.times), source)
    if not times:
        return []
    try:
        keep_times(times_folder(), model_key(path, machine_key(known_units())), times)
    except OSError as error:
        return [f"what was measured is not kept for plans: {error}"]
    return []


def _busy(machine: Machine) -> list[str]:
    """Returns a note if other processes use the CPU: the load average is at least a quarter of the cores."""
    load = os.getloadavg()[0]
    if load < machine.num_cores / 4:
        return []
    return [
        f"in the minute before, {load:.1f} threads on average wanted the {machine.num_cores} cores: the figures are "
        "noisy, and worse than those of an idle machine"
    ]
