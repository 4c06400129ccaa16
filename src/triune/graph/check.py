"""Does a pass change what a model computes? The model before and after it, on the same sample inputs."""

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
    """Inputs for a model: seeded noise in [-1, 1), zeros and ones, and `free_size` for each free dimension.

    Raises:
        UnsupportedError: an input is no tensor of numbers.
    """
    rng = np.random.default_rng(seed)
    defaults = {tensor.name for tensor in model.graph.initializer}
    inputs: dict[str, NDArray[Any]] = {}
    for value in model.graph.input:
        if value.name in defaults:
            continue
        tensor = value.type.tensor_type
        if tensor.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
            raise UnsupportedError(f"input '{value.name}' is no tensor of numbers; give its sample yourself")
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        shape = [dim.dim_value if dim.HasField("dim_value") else free_size for dim in tensor.shape.dim]
        if dtype.kind in "biu":
            inputs[value.name] = rng.integers(0, 2, shape).astype(dtype)
        else:
            inputs[value.name] = (rng.random(shape) * 2 - 1).astype(dtype)
    return inputs


class Check:
    """Compares a model after each pass with what it computed at first, on sample inputs: a watcher of `run_passes`."""

    def __init__(self, model: ModelProto, inputs: Arrays, *, tolerance: float = 1e-4) -> None:
        """Computes `model` by ONNX's reference evaluator, which is slow: for tests and for doubts."""
        self._inputs = inputs
        self._tolerance = tolerance
        self._expected = evaluate(model, inputs)

    def __call__(self, step: str, model: ModelProto, /) -> None:
        """Raises InternalError where `model`, the result of pass `step`, gives other outputs."""
        compare(step, self._expected, model, self._inputs, tolerance=self._tolerance)


def compare(
    step: str, expected: Sequence[NDArray[Any]], model: ModelProto, inputs: Arrays, *, tolerance: float = 1e-4
) -> None:
    """Run `model` and compare its outputs with those that it had before `step`.

    Raises:
        InternalError: they differ by more than `tolerance`, absolute or relative.
    """
    names = [value.name for value in model.graph.output]
    for name, before, after in zip(names, expected, evaluate(model, inputs), strict=True):
        if before.shape != after.shape:
            raise InternalError(f"pass '{step}' changed output '{name}' from shape {before.shape} to {after.shape}")
        if not np.allclose(before, after, rtol=tolerance, atol=tolerance, equal_nan=True):
            error = np.max(np.abs(np.subtract(before, after, dtype=np.float64)))
            raise InternalError(f"pass '{step}' changed output '{name}' by up to {error:.3g}")


def evaluate(model: ModelProto, inputs: Arrays) -> list[NDArray[Any]]:
    """The outputs, by ONNX's reference evaluator."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        evaluator: Any = ReferenceEvaluator(model)
        results: list[Any] = evaluator.run(None, dict(inputs))
    return [np.asarray(each) for each in results]
