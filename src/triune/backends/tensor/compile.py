"""Compile and warm up a model's executables. An executable with an equal recipe is reused."""

import functools
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from triune.backends.attempt import Attempt
from triune.backends.tensor.executable import SharedExecutable
from triune.config.model_config import ModelConfig
from triune.config.placement import Recipe
from triune.config.samples import trial_inputs, warmup_inputs
from triune.core.datatypes import Array
from triune.core.errors import InternalError, TriuneError, UnavailableError, reworded
from triune.core.runtime import Executable
from triune.hardware.memory import usable_memory
from triune.hosting import HostedExecutable, Limits, MemoryLimitError
from triune.runtimes.cache_holds import collecting, hold_path, keep_for
from triune.runtimes.machine import Machine

WARMUP_SECONDS: Final = 60.0
"""After this time, in seconds, over all executables of a model, no further run of its warm-up begins, so that the load
ends.
"""

MORE_MEMORY: Final = (
    "allow it more by --model-memory-bytes or --conversion-memory-bytes: a load in a process of its own may take the "
    "larger of both"
)
"""The remedy in the error of a load that exceeded its memory limit."""

_log = logging.getLogger(__name__)


def compile_all(
    config: ModelConfig,
    folder: Path,
    recipes: Sequence[Recipe],
    machine: Machine,
    *,
    spare: Sequence[SharedExecutable],
    attempt: Attempt,
    undo: ExitStack,
) -> list[SharedExecutable]:
    """Make a warmed-up executable for each recipe.

    Args:
        config: the model's configuration.
        folder: the model's folder, for its warm-up files.
        recipes: the recipes to compile.
        machine: the machine with the runtimes.
        spare: executables of the same model file. An executable with an equal recipe is shared instead of compiled
            again.
        attempt: cancels the build.
        undo: receives the `close` of each executable, which is called if the build fails.

    Raises:
        TriuneError: `Runtime.load` raised it, or a warm-up sample failed.
        UnavailableError: the executables run in processes of their own, and there is not enough memory for all of them.
    """
    left = list(spare)
    executables: list[SharedExecutable] = []
    warmup = WarmUp(config, folder, attempt)
    samples = trial_inputs(config, folder)
    for recipe in recipes:
        old = next((each for each in left if each.recipe == recipe), None)
        executable = old.hold() if old is not None else compile_one(config.path, recipe, machine, samples)
        undo.callback(executable.close)
        executables.append(executable)
        if old is not None:
            left.remove(old)
            continue
        attempt.add(executable)
        warmup.run(executable)
        _check_memory(config, executable, len(recipes) - len(executables) - len(left))
    return executables


def _check_memory(config: ModelConfig, executable: SharedExecutable, num_more: int) -> None:
    """Refuse a model if the processes of the `num_more` executables that are still to be loaded do not fit the memory.

    Raises:
        UnavailableError: if each process takes as much memory as that of `executable`, all together take more than is
            available.
    """
    if num_more <= 0 or not executable.is_hosted:
        return
    each, available = executable.process_bytes(), usable_memory().available
    if num_more * each > available:
        raise UnavailableError(
            f"model '{config.name}' asks for {num_more} more worker processes like the one on "
            f"'{executable.unit.value}', which takes {each} bytes of memory, but only {available} are left: at most "
            f"{available // each} fit; give a smaller count in instance_group"
        )


def compile_one(
    path: Path, recipe: Recipe, machine: Machine, samples: Iterable[Mapping[str, Array]] = ()
) -> SharedExecutable:
    """Compile one executable, with a reference count of 1.

    Args:
        path: the model file.
        recipe: how to compile it; its graph is first optimized, if the recipe has a level.
        machine: the machine with the runtimes.
        samples: the model's samples, to compare an optimized graph that accepts no generated inputs.

    Raises:
        TriuneError: `Runtime.load` or `optimized_file` raised it.
        InternalError: the process of the executable exceeded the memory limit of loads.
    """
    with collecting() as used:
        # If the file is in a cache, such as a file whose custom operators were replaced, mark it as in use.
        hold_path(path)
        executable = _compile(path, recipe, machine, samples)
        keep_for(executable, used)
    return executable


def _compile(path: Path, recipe: Recipe, machine: Machine, samples: Iterable[Mapping[str, Array]]) -> SharedExecutable:
    if recipe.level is not None:
        # This is imported here, since importing the passes takes time, and most models have no optimization level.
        from triune.backends.tensor.optimized import optimized_file

        limit, ops = machine.conversion_bytes, machine.custom_ops
        path = optimized_file(path, recipe.level, recipe.unit, iter(samples), ops=ops, memory_bytes=limit)
    load = functools.partial(
        machine.runtimes[recipe.runtime].load,
        path,
        unit=recipe.unit,
        num_threads=recipe.num_threads,
        options=dict(recipe.options),
    )
    if not recipe.has_own_process:
        return SharedExecutable(load(), recipe)
    limits = Limits(memory_bytes=machine.load_limit())
    try:
        hosted = HostedExecutable(load, f"'{path}' on '{recipe.unit.value}'", limits=limits)
    except MemoryLimitError as error:
        raise InternalError(f"{error}; {MORE_MEMORY}") from error
    return SharedExecutable(hosted, recipe)


class WarmUp:
    """The warm-up of a model's executables, one after the other."""

    def __init__(self, config: ModelConfig, folder: Path, attempt: Attempt) -> None:
        """Args:
        config: the model's configuration.
        folder: the model's folder, for its warm-up files.
        attempt: cancels the build.
        """
        self._config = config
        self._folder = folder
        self._attempt = attempt
        self._seconds = 0.0

    def run(self, executable: Executable) -> None:
        """Run all samples. After WARMUP_SECONDS the remaining samples are skipped, and this is logged.

        Raises:
            TriuneError: a sample failed.
            UnavailableError: the build was cancelled.
        """
        start = time.monotonic()
        num_done, num_runs = 0, sum(sample.num_runs for sample in self._config.warmup)
        for sample in self._config.warmup:
            inputs = warmup_inputs(sample, self._config, self._folder)
            for _ in range(sample.num_runs):
                self._attempt.check()
                if self._seconds + time.monotonic() - start > WARMUP_SECONDS:
                    _log.warning(
                        "model '%s': the warm-up on %s ends after %d of %d runs, because it took more than %g s; give "
                        "smaller counts in model_warmup",
                        self._config.name,
                        executable.unit.value,
                        num_done,
                        num_runs,
                        WARMUP_SECONDS,
                    )
                    self._seconds = WARMUP_SECONDS
                    return
                try:
                    executable.run(inputs, list(self._config.outputs))
                except TriuneError as error:
                    raise reworded(error, f"warm-up sample '{sample.name}' failed: {error}") from error
                num_done += 1
        self._seconds += time.monotonic() - start
