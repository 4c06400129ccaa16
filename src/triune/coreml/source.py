"""The record of the source in a converted package: the names and ranks that its tensors had in the source."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError
from triune.coreml.package import Package

SOURCE_KEY = "triune.source"
"""The key of the package's user-defined metadata under which the source's names, types and shapes are, as JSON."""


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """A tensor as it was in the source.

    Attributes:
        name: its name in the source.
        rank: its rank in the source; None if unknown. Core ML itself has no inputs or outputs of rank 0.
    """

    name: str
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """The source's tensors by the package's names; empty if Triune did not convert the package."""

    inputs: Mapping[str, SourceTensor] = field(default_factory=dict[str, SourceTensor])
    outputs: Mapping[str, SourceTensor] = field(default_factory=dict[str, SourceTensor])


def as_program_takes(inputs: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """Inputs by the package's names; inputs of rank 0, as in the source, get the shape [1]."""
    scalars = {name for name, tensor in source.inputs.items() if tensor.rank == 0}
    return {
        name: value.reshape(1) if name in scalars and isinstance(value, np.ndarray) and not value.ndim else value
        for name, value in inputs.items()
    }


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
        return Source(*({name: _tensor(each) for name, each in given[kind].items()} for kind in ("inputs", "outputs")))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidArgumentError(
            f"the metadata '{SOURCE_KEY}' of '{package.name}' are not what a conversion writes "
            f"({type(error).__name__}: {error}); convert the model again"
        ) from error


def _tensor(entry: Any) -> SourceTensor:
    name, rank = entry["source"], entry.get("rank")
    if not isinstance(name, str) or not (rank is None or isinstance(rank, int)):
        raise TypeError(f"{entry!r} is no name with a rank")
    return SourceTensor(name, rank)
