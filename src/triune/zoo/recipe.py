"""Recipes: a recipe builds a model's folder from the files of packages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from triune.core.units import Unit
from triune.zoo.packages import Package, Sources


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model folder in Triton's layout, in memory.

    Attributes:
        config: the text of config.pbtxt.
        files: the content of each file, by its path below the model's folder ("1/model.onnx", "labels.txt").
    """

    config: str
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])


Build: TypeAlias = Callable[[Sources, Sequence[Unit]], ModelFolder]
"""Builds the folder for the given units. Raises the errors of `Sources.read`, and of what reads the model's files."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A model that the zoo can build.

    Attributes:
        name: the model's name.
        build: builds its folder.
        packages: the packages that `build` reads.
        units: the compute units that can run the model.
        backend: the backend that serves it.
        num_units: the most units to place it on, the preferred ones first; None means all. On each unit, a transformer
            has its own weights and cache.
    """

    name: str
    build: Build
    packages: tuple[Package, ...] = ()
    units: frozenset[Unit] = frozenset({Unit.CPU})
    backend: str = "onnxruntime"
    num_units: int | None = None


def placement(units: Sequence[Unit]) -> str:
    """The lines of config.pbtxt that place a model on `units`, in order of preference."""
    group = "instance_group [ { kind: KIND_CPU, count: 1 } ]\n"
    if list(units) == [Unit.CPU]:
        return group
    names = ",".join(unit.value for unit in units)
    return f'{group}parameters {{ key: "units" value {{ string_value: "{names}" }} }}\n'
