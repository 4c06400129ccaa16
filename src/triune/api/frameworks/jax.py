"""Exports functions of JAX, and callable modules of Flax and Equinox, by jax2onnx."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from triune.api.frameworks.result import Export, ExporterError, Request, library
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.graph.conversion.shapes import Range


def export(request: Request) -> Export:
    """Export a function of arrays. Its inputs are its parameters, by name; sizes that are ranges stay free.

    Raises:
        ExporterError: jax2onnx cannot convert the function. The message names the primitive.
        InvalidArgumentError: the examples are not those of the function's parameters.
    """
    jax, exporter = library("jax"), library("jax2onnx")
    function = request.source
    names = _names(function, request)
    specs = [_spec(name, request, jax) for name in names]
    try:
        model = exporter.to_onnx(function, inputs=specs, input_names=names, model_name="jax")
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ExporterError(
            f"jax2onnx cannot convert the function: {type(error).__name__}: {' '.join(lines[:4])}"[:600]
        ) from error
    finally:
        # jax2onnx traces functions with primitives of its own, which JAX would keep for later calls of what is jitted.
        jax.clear_caches()
    request.target.write_bytes(model.SerializeToString())

    def compute(inputs: Mapping[str, Array]) -> Sequence[Array]:
        found: Sequence[Any] = jax.tree.leaves(function(*(jax.numpy.asarray(inputs[name]) for name in names)))
        return [np.asarray(each) for each in found]

    return Export(compute, {})


def _names(function: Any, request: Request) -> list[str]:
    """The names of the parameters that have examples, in order."""
    parameters = inspect.signature(function).parameters
    positional = [
        name for name, each in parameters.items() if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    needed = [name for name in positional if parameters[name].default is inspect.Parameter.empty]
    given = list(request.inputs)
    if given != positional[: len(given)] and set(given) == set(positional[: len(given)]):
        given = positional[: len(given)]
    if given != positional[: len(given)] or any(name not in given for name in needed):
        raise InvalidArgumentError(
            f"the inputs of the function are {', '.join(positional)}; give an example of each with "
            "inputs={name: array}"
        )
    return given


def _spec(name: str, request: Request, jax: Any) -> Any:
    array = request.inputs[name]
    dims = request.dims(name, array)
    if any(isinstance(dim, Range) for dim in dims):
        # Refuse other dtypes: jax2onnx accepts shapes with named free sizes only for fp32.
        if array.dtype != np.float32:
            raise InvalidArgumentError(
                f"input '{name}' is {array.dtype} with sizes that are ranges, which jax2onnx has for float32 only; fix "
                "its shape"
            )
        return tuple(f"{name}_{axis}" if isinstance(dim, Range) else dim for axis, dim in enumerate(dims))
    return jax.ShapeDtypeStruct(tuple(dims), array.dtype)
