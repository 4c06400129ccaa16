"""Placement: the runtime, unit, threads and options of each executable of a model."""

from collections.abc import Sequence
from dataclasses import dataclass

from triune.config.model_config import ModelConfig
from triune.config.parameters import options_of, read_options
from triune.config.unsupported import BACKENDS_WITH_GRAPH_LEVEL
from triune.core.runtime import Runtime
from triune.core.units import Unit
from triune.graph.optimizing.level import Level
from triune.runtimes.machine import Machine


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that an executable depends on besides the model file. Equal recipes make equal executables.

    Attributes:
        runtime: the runtime's name.
        unit: the unit that the executable is compiled for.
        num_threads: the number of CPU threads in one run.
        options: the settings of the runtime, sorted by name.
        has_own_process: whether it runs in its own process.
        level: how far the model's graph is optimized for the unit before it is compiled; None leaves the file as it is.
    """

    runtime: str
    unit: Unit
    num_threads: int
    options: tuple[tuple[str, str], ...]
    has_own_process: bool = False
    level: Level | None = None


def place(config: ModelConfig, machine: Machine) -> Sequence[Recipe]:
    """Make a recipe for each executable, ordered by unit, then by instance.

    Raises:
        UnsupportedError: no runtime serves one of the units.
    """
    num_threads = threads_per_executable(config.num_instances, machine.num_cores)
    recipes = [recipe_on(unit, num_threads, config, machine) for unit in config.units]
    return [recipe for recipe in recipes for _ in range(config.num_instances)]


def recipe_on(unit: Unit, num_threads: int, config: ModelConfig, machine: Machine) -> Recipe:
    """Make the recipe of an executable on any unit, even on a unit that the config does not name. Raises the errors of
    `place`.
    """
    runtime = machine.runtime_for(config.backend, unit)
    options = _options(config, runtime)
    return Recipe(runtime.name, unit, num_threads, tuple(sorted(options.items())), config.has_own_process, config.level)


def threads_per_executable(num_instances: int, num_cores: int) -> int:
    """The number of CPU threads for each executable of a model, at least 1. All instances on one unit together use at
    most all cores. The cores are not divided among units, since the arbiter decides how many units compute at once.
    """
    return max(1, num_cores // num_instances)


def _options(config: ModelConfig, runtime: Runtime) -> dict[str, str]:
    options = read_options(config.parameters, runtime, config.backend)
    optimization = config.message.optimization
    if runtime.name in BACKENDS_WITH_GRAPH_LEVEL and optimization.HasField("graph"):
        options["optimization.graph.level"] = str(optimization.graph.level)
    limit = f"{runtime.name}.max_batch_size"
    if limit in options_of(runtime, config.backend):
        options.setdefault(limit, str(config.batching.max_batch_size))
    return options
