"""A trial: a model is loaded with a config as the server loads it, measured under some loads, and freed."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from triune.arbiter.arbiter import Arbiter
from triune.backends.attempt import Attempt
from triune.backends.machine_backend import Shared
from triune.backends.registry import Backends
from triune.backends.tensor.backend import TensorBackend
from triune.backends.tensor.build import TensorBuild
from triune.config.configure import Source
from triune.config.model_config import ModelConfig
from triune.config.parameters import UNITS_PARAMETER
from triune.config.samples import trial_inputs
from triune.config.stamps import Stamp
from triune.core.clock import MonotonicClock
from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.core.numpy_files import read_npz
from triune.core.requests import InferenceRequest
from triune.core.servable import Call
from triune.core.units import Unit
from triune.hardware.energy.ledger import EnergyLedger
from triune.hardware.energy.metering import metered
from triune.planning.measured import MeasuredTime
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.runtimes.machine import Machine
from triune.scheduling.models import LoadedVersion
from triune.tuning.callers import load_level
from triune.tuning.kept import KeptExecutables
from triune.tuning.measurement import LoadLevel, Measurement

_MAX_CALLS = 1024

_LEAST_BATCHES = 16
"""The mean time of a batch size is kept only if at least this many batches of it ran: the first ones are slower."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that is tuned. It can be pickled, for the process of the trials.

    Attributes:
        name: the model's name.
        folder: its folder.
        version: its version.
        machine: the machine.
        callers: the numbers of callers of the loads.
        inputs: a file written by numpy with the user's inputs; None to generate inputs.
        is_metered: whether joules are measured.
        units: the parameter `units` of the given config; empty if it has none.
    """

    name: str
    folder: Path
    version: int
    machine: Machine
    callers: Sequence[int]
    inputs: Path | None = None
    is_metered: bool = False
    units: str = ""


class _NoModels:
    """The models that the model may call: none, since a tensor model calls no other."""

    def get(self, name: str, version: int | None = None) -> LoadedVersion:
        raise NotFoundError(f"there is no model '{name}', version {version}, beside the one that is tuned")


def measure(
    subject: Subject, message: ModelConfigMessage, seconds: float, kept: KeptExecutables | None = None
) -> Measurement:
    """Load the model with a config, and measure it.

    Args:
        subject: the model.
        message: the config, as in config.pbtxt.
        seconds: how long requests are sent at each number of concurrent callers.
        kept: the store of executables of earlier trials of the same model, to which those of this trial are added; None
            stores none.

    Raises:
        TriuneError: the model cannot be loaded with the config, or does not answer.
    """
    with metered(subject.machine.units) if subject.is_metered else nullcontext() as ledger:
        return asyncio.run(_measure(subject, message, seconds, ledger, kept))


async def _measure(
    subject: Subject,
    message: ModelConfigMessage,
    seconds: float,
    ledger: EnergyLedger | None,
    kept: KeptExecutables | None,
) -> Measurement:
    clock = MonotonicClock()
    async with _loaded(subject, message, ledger, kept) as (loaded, shortfall):
        # Refuse a config that names a unit whose answers are wrong. The given config may name such a unit: it is then
        # measured without the unit.
        if shortfall and units_of(message) != subject.units:
            raise UnsupportedError(shortfall)
        calls, notes = await _calls(subject, loaded)
        notes = [*notes, shortfall] if shortfall else notes

        async def joules() -> float:
            if ledger is not None:
                await ledger.settle()
            accounts = loaded.statistics.accounts.values()
            for account in accounts:
                if reason := account.why_unavailable():
                    raise UnsupportedError(f"the joules of '{account.unit.value}' are unavailable: {reason}")
            return sum(sum(account.totals().values()) for account in accounts)

        levels: list[LoadLevel] = []
        for callers in subject.callers:
            metering = joules if ledger is not None else None
            try:
                levels.append(await load_level(loaded.servable, calls, callers, seconds, clock, metering))
            except ExceptionGroup as group:
                raise group.exceptions[0] from group
        return Measurement(levels, notes=notes, times=_times(loaded, calls[0].inputs))


def _times(loaded: LoadedVersion, inputs: Mapping[str, Array]) -> list[MeasuredTime]:
    """The mean time of each batch size, for requests with inputs like `inputs`. Sizes with fewer than _LEAST_BATCHES
    batches are left out. Empty if several units computed batches.
    """
    statistics, has_batch = loaded.statistics, loaded.config.batching.max_batch_size > 0
    if len(statistics.unit_inferences) != 1:
        return []
    (unit,) = statistics.unit_inferences
    return [
        MeasuredTime(
            unit,
            {name: (num_rows, *array.shape[1:]) if has_batch else array.shape for name, array in inputs.items()},
            batch.compute_infer.total_ns / batch.compute_infer.count / 1e6,
            batch.compute_infer.count,
        )
        for num_rows, batch in statistics.batches.items()
        if batch.compute_infer.count >= _LEAST_BATCHES and batch.compute_infer.total_ns
    ]


def units_of(message: ModelConfigMessage) -> str:
    """The parameter `units` of a config; empty if it has none."""
    return message.parameters[UNITS_PARAMETER].string_value if UNITS_PARAMETER in message.parameters else ""


@asynccontextmanager
async def _loaded(
    subject: Subject, message: ModelConfigMessage, ledger: EnergyLedger | None, kept: KeptExecutables | None
) -> AsyncGenerator[tuple[LoadedVersion, str]]:
    clock, machine = MonotonicClock(), subject.machine
    shared = Shared(energy=ledger, arbiter=Arbiter(clock, machine.emulated(Unit)))
    backends = Backends(TensorBackend(machine, clock, shared=shared), clock)
    source = Source(subject.name, subject.folder, message, (subject.version,), Stamp())
    previous = None if kept is None else kept.previous()
    build = await asyncio.to_thread(backends.build, source, subject.version, previous, Attempt())
    try:
        loaded = backends.assemble(build, _NoModels())
    except BaseException:
        build.close()
        raise
    try:
        yield loaded, build.shortfall
        if kept is not None and isinstance(build, TensorBuild):
            kept.keep(build)
    finally:
        await loaded.servable.close()


async def _calls(subject: Subject, loaded: LoadedVersion) -> tuple[Sequence[Call], Sequence[str]]:
    """The requests to send, each of one row, and notes on them for the user."""
    config = loaded.config
    if subject.inputs is not None:
        return _given_calls(subject.inputs, loaded), ()
    is_warm = any(source != "zero" for sample in config.warmup for _, _, source in sample.inputs.values())
    texts = [name for name, each in config.inputs.items() if each.datatype is DataType.BYTES and not each.is_optional]
    if texts and not is_warm:
        raise UnsupportedError(
            f"input '{texts[0]}' has texts, which cannot be made up: give a file of inputs (--input), or a "
            "model_warmup sample in the config"
        )
    refusal: TriuneError | None = None
    for inputs in trial_inputs(config, subject.folder):
        call = Call(InferenceRequest(config.name, {}), _one_row(inputs, config), 1)
        try:
            await loaded.servable.submit(call)
        except InvalidArgumentError as error:
            refusal = error
            continue
        if is_warm:
            return [call], ("the requests are the config's model_warmup sample",)
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        return [call], (f"the requests are made-up numbers: {shapes}",)
    raise InvalidArgumentError(
        f"the model takes none of the made-up inputs ({refusal}): give a file of inputs (--input)"
    )


def _one_row(inputs: Mapping[str, Array], config: ModelConfig) -> dict[str, Array]:
    has_batch = config.batching.max_batch_size > 0
    return {name: array[:1] if has_batch else array for name, array in inputs.items()}


def _given_calls(path: Path, loaded: LoadedVersion) -> Sequence[Call]:
    """The requests of the user's file: one for each row, or one with all, if the model has no batch dimension.

    Raises:
        InvalidArgumentError: the file cannot be read, or does not fit the model.
    """
    arrays = {name: _as_bytes(array) for name, array in read_npz(path, "the inputs").items()}
    config = loaded.config
    if not config.batching.max_batch_size:
        return [loaded.check(InferenceRequest(config.name, arrays))]
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or not (num_rows := next(iter(lengths.values()))):
        shown = ", ".join(f"{name}: {length}" for name, length in lengths.items()) or "no array"
        raise InvalidArgumentError(f"the inputs '{path}' must have as many rows each, at least one; they have {shown}")
    return [
        loaded.check(InferenceRequest(config.name, {name: array[row : row + 1] for name, array in arrays.items()}))
        for row in range(min(num_rows, _MAX_CALLS))
    ]


def _as_bytes(array: Array) -> Array:
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    return array.astype(np.object_) if array.dtype.kind == "S" else array
