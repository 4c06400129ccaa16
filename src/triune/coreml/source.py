"""The record in a converted package of its ONNX model: the names and ranks of the model's inputs and outputs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError
from triune.coreml.package import Package

SOURCE_KEY = "triune.source"
"""The key in the package's user-defined metadata. Its value is JSON with the names, types and shapes of the source
model.
"""


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """An input or output of the model that a package was converted from.

    Attributes:
        name: its name in that model.
        rank: its rank in that model; None if unknown. Core ML has no inputs or outputs of rank 0.
    """

    name: str
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """The inputs and outputs of the model that a package was converted from, by their names in the package.

    `inputs` and `outputs` are empty if Triune did not convert the package.
    """

    inputs: Mapping[str, SourceTensor] = field(default_factory=dict[str, SourceTensor])
    outputs: Mapping[str, SourceTensor] = field(default_factory=dict[str, SourceTensor])


def as_program_takes(inputs: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """Reshape inputs that are scalars in the source to [1], as the program requires. `inputs` has the package's
    names.
    """
    scalars = {name for name, tensor in source.inputs.items() if tensor.rank == 0}
    return {
        name: np.reshape(value, 1) if name in scalars and is_scalar(value) else value for name, value in inputs.items()
    }


def is_scalar(value: Any) -> bool:
    """Whether a value is a number, or an array of rank 0."""
    return isinstance(value, bool | int | float) or (isinstance(value, np.ndarray | np.generic) and value.ndim == 0)


def read_source(package: Package) -> Source:
    """Read the record from the package's metadata.

    Raises:
        InvalidArgumentError: the metadata are malformed.
    """
    text = package.description.metadata.get(SOURCE_KEY)
    if text is None:
        return Source()
    try:
        given: Any = json.loads(text)
        return Source(
            *({name: _source_tensor(each) for name, each in given[kind].items()} for kind in ("inputs", "outputs"))
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidArgumentError(
            f"the metadata '{SOURCE_KEY}' of '{package.name}' are not what a conversion writes "
            f"({type(error).__name__}: {error}); convert the model again"
        ) from error


def _source_tensor(entry: Any) -> SourceTensor:
    name, rank = entry["source"], entry.get("rank")
    if not isinstance(name, str) or not (rank is None or isinstance(rank, int)):
        raise TypeError(f"{entry!r} is not a name and a rank")
    return SourceTensor(name, rank)
