"""Check that passes do not change what a model computes: run it before and after each pass on the same inputs."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from triune.core.errors import InternalError, UnsupportedError

Arrays = Mapping[str, NDArray[Any]]


def sample_inputs(model: ModelProto, *, free_size: int = 3, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Create inputs for a model: random floats in [-1, 1), and random integers and booleans of 0 and 1.

    Each free dimension has size `free_size`.

    Raises:
        UnsupportedError: an input is not a tensor of numbers.
    """
    rng = np.random.default_rng(seed)
    defaults = {tensor.name for tensor in model.graph.initializer}
    inputs: dict[str, NDArray[Any]] = {}
    for value in model.graph.input:
        if value.name in defaults:
            continue
        tensor = value.type.tensor_type
        if tensor.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
            raise UnsupportedError(f"input '{value.name}' is not a tensor of numbers; give a value for it")
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        shape = [dim.dim_value if dim.HasField("dim_value") else free_size for dim in tensor.shape.dim]
        if dtype.kind in "biu":
            inputs[value.name] = rng.integers(0, 2, shape).astype(dtype)
        else:
            inputs[value.name] = (rng.random(shape) * 2 - 1).astype(dtype)
    return inputs


class Check:
    """A `Watcher` of `run_passes` that compares the model's outputs after each pass with those before the first
    pass.
    """

    def __init__(self, model: ModelProto, inputs: Arrays, *, tolerance: float = 1e-4) -> None:
        """Runs `model` in ONNX's reference evaluator, which is slow: meant for tests and for debugging."""
        self._inputs = inputs
        self._tolerance = tolerance
        self._expected = evaluate(model, inputs)

    def __call__(self, step: str, model: ModelProto, /) -> None:
        """Raises InternalError if `model`, the result of the pass `step`, computes other outputs than the original
        model.
        """
        compare(step, self._expected, model, self._inputs, tolerance=self._tolerance)


def compare(
    step: str, expected: Sequence[NDArray[Any]], model: ModelProto, inputs: Arrays, *, tolerance: float = 1e-4
) -> None:
    """Run `model` and compare its outputs with those that it had before `step`.

    Raises:
        InternalError: they differ by more than `tolerance`, which is both the absolute and the relative tolerance.
    """
    names = [value.name for value in model.graph.output]
    for name, before, after in zip(names, expected, evaluate(model, inputs), strict=True):
        if before.shape != after.shape:
            raise InternalError(f"pass '{step}' changed output '{name}' from shape {before.shape} to {after.shape}")
        if not np.allclose(before, after, rtol=tolerance, atol=tolerance, equal_nan=True):
            error = np.max(np.abs(np.subtract(before, after, dtype=np.float64)))
            raise InternalError(f"pass '{step}' changed output '{name}' by up to {error:.3g}")


def evaluate(model: ModelProto, inputs: Arrays) -> list[NDArray[Any]]:
    """Compute the outputs of a model with ONNX's reference evaluator."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        evaluator: Any = ReferenceEvaluator(model)
        results: list[Any] = evaluator.run(None, dict(inputs))
    return [np.asarray(each) for each in results]
