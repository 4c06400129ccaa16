"""Little ML Programs: built with coremltools, read as packages, raised to ONNX and run."""

import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from triune.coreml.mil import Array
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import Package, read_specification
from triune.coreml.quiet import quiet

# Its own types are partial.
with quiet():
    _ct: Any = import_module("coremltools")
    _mil: Any = import_module("coremltools.converters.mil.mil")
    _type_mapping: Any = import_module("coremltools.converters.mil.mil.types.type_mapping")
    _backend: Any = import_module("coremltools.converters.mil.backend.mil.load")
mb: Any = _mil.Builder
mil_types: Any = _mil.types


def make_package(
    build: Callable[[Any], Any], inputs: Mapping[str, Array], target: str = "iOS15", *, is_dynamic: bool = False
) -> Package:
    """A program of `make_specification`, read."""
    return read_specification(*make_specification(build, inputs, target, is_dynamic=is_dynamic))


def make_specification(
    build: Callable[[Any], Any], inputs: Mapping[str, Array], target: str = "iOS15", *, is_dynamic: bool = False
) -> tuple[Any, dict[str, bytes]]:
    """A program of what `build` makes of its inputs (an object that has them by name), with no pass over it.

    Its weight files come with it, by name.

    `inputs` are examples: shapes and element types are theirs. With `is_dynamic` no size is known.
    """
    opset = getattr(_ct.target, target)
    builtin = _type_mapping.numpy_type_to_builtin_type
    placeholders: dict[str, Any] = {}
    for name, each in inputs.items():
        shape = [_mil.get_new_symbol() for _ in each.shape] if is_dynamic else each.shape
        placeholders[name] = mb.placeholder(shape, builtin(each.dtype.type))
    program: Any = _mil.Program()
    with quiet(), _mil.Function(placeholders, opset_version=opset) as function:
        made: Any = build(SimpleNamespace(**function.inputs))
        function.set_outputs(list(made) if hasattr(made, "__len__") else [made])
    program.add_function("main", function)
    function.set_input_types(
        tuple(
            _ct.TensorType(name, [_ct.RangeDim(1, 100) for _ in each.shape] if is_dynamic else each.shape)
            for name, each in inputs.items()
        )
    )
    with quiet(), tempfile.TemporaryDirectory() as folder:
        specification = _backend.load(program, folder, specification_version=opset)
        weights = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return specification, weights


def run(
    build: Callable[[Any], Any], inputs: Mapping[str, Array], target: str = "iOS15", *, is_dynamic: bool = False
) -> list[Array]:
    """The outputs of what `build` makes, computed by ONNX Runtime."""
    package = make_package(build, inputs, target, is_dynamic=is_dynamic)
    executor = OnnxExecutor(package, num_threads=1)
    outputs, _ = executor.run({name: np.asarray(each) for name, each in inputs.items()}, {})
    return [outputs[name] for name in package.function().block.outputs]
