"""Compile and warm up a model's executables. Those with equal recipes are reused."""

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from triune.backends.attempt import Attempt
from triune.backends.tensor.executable import SharedExecutable
from triune.config.model_config import ModelConfig
from triune.config.placement import Recipe
from triune.config.samples import warmup_inputs
from triune.core.errors import TriuneError
from triune.hosting import HostedExecutable
from triune.runtimes.machine import Machine


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
        spare: executables of the same model file. If the recipe of one is equal, it is shared, not compiled again.
        attempt: cancels the build.
        undo: gets the `close` of each executable, to be called if the build fails.

    Raises:
        TriuneError: as `Runtime.load` does, or a warm-up sample failed.
    """
    left = list(spare)
    executables: list[SharedExecutable] = []
    for recipe in recipes:
        old = next((each for each in left if each.recipe == recipe), None)
        executable = old.hold() if old is not None else compile_one(config.path, recipe, machine)
        undo.callback(executable.close)
        executables.append(executable)
        if old is not None:
            left.remove(old)
            continue
        attempt.add(executable)
        _warm_up(executable, config, folder, attempt)
    return executables


def compile_one(path: Path, recipe: Recipe, machine: Machine) -> SharedExecutable:
    """Compile one executable, with a reference count of 1. Raises as `Runtime.load` does."""
    load = functools.partial(
        machine.runtimes[recipe.runtime].load,
        path,
        unit=recipe.unit,
        num_threads=recipe.num_threads,
        options=dict(recipe.options),
    )
    if not recipe.has_own_process:
        return SharedExecutable(load(), recipe)
    return SharedExecutable(HostedExecutable(load, f"'{path}' on '{recipe.unit.value}'"), recipe)


def _warm_up(executable: SharedExecutable, config: ModelConfig, folder: Path, attempt: Attempt) -> None:
    for sample in config.warmup:
        inputs = warmup_inputs(sample, config, folder)
        for _ in range(sample.num_runs):
            attempt.check()
            try:
                executable.run(inputs, list(config.outputs))
            except TriuneError as error:
                raise type(error)(f"warm-up sample '{sample.name}' failed: {error}") from error
