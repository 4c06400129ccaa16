"""What the contract's programs are: a case with its inputs, and its answers where they are known from elsewhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np

from support.mil_programs import mb
from triune.coreml.mil import Array
from triune.coreml.quiet import quiet

with quiet():
    _ct: Any = import_module("coremltools")
    _mil: Any = import_module("coremltools.converters.mil.mil")


@dataclass(frozen=True)
class Case:
    """A program of one operation or a few.

    Attributes:
        build: makes it of its inputs, which it gets by name.
        inputs: what it is run on.
        expected: gives its outputs. None where executors are only held to each other.
        target: the least system.
    """

    name: str
    build: Callable[[Any], Any]
    inputs: dict[str, Array]
    expected: Callable[[], Sequence[Array]] | None = None
    target: str = "iOS18"
    tolerance: float = 1e-5


def inferred(name: str, build: Callable[[Any], Any], target: str = "iOS18", **inputs: Array) -> Case:
    """A case whose answer coremltools infers from constants."""
    return Case(name, build, inputs, lambda: infer(build, inputs, target), target)


def known(name: str, build: Callable[[Any], Any], *expected: Any, target: str = "iOS18", **inputs: Array) -> Case:
    """A case whose answer is given."""
    return Case(name, build, inputs, lambda: [np.asarray(each) for each in expected], target)


def alike(
    name: str, build: Callable[[Any], Any], target: str = "iOS18", tolerance: float = 2e-5, **inputs: Array
) -> Case:
    """A case whose answer is the reference's."""
    return Case(name, build, inputs, None, target, tolerance)


def op(name: str, **parameters: Any) -> Callable[[Any], Any]:
    """An operation on `x`."""
    return lambda given: getattr(mb, name)(x=given.x, **parameters)


def binary(name: str) -> Callable[[Any], Any]:
    """An operation on `x` and `y`."""
    return lambda given: getattr(mb, name)(x=given.x, y=given.y)


def uniform(*shape: int, seed: int = 0, low: float = -2, high: float = 2) -> Array:
    """Numbers that are the same each time."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def infer(build: Callable[[Any], Any], inputs: dict[str, Array], target: str) -> list[Array]:
    """What coremltools' own value inference makes of constants."""
    with quiet(), _mil.Function({}, opset_version=getattr(_ct.target, target)):
        made = build(SimpleNamespace(**{name: mb.const(val=each) for name, each in inputs.items()}))
        outputs = list(made) if hasattr(made, "__len__") else [made]
        values = [each.val for each in outputs]
    assert all(each is not None for each in values), "coremltools infers no value"
    return [np.asarray(each) for each in values]
