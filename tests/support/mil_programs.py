"""Small ML Programs: they are built with coremltools, read as packages, raised to ONNX and run."""

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

# The type annotations of coremltools are incomplete.
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
    """Make a program with `make_specification`, save it and read it."""
    return read_specification(*make_specification(build, inputs, target, is_dynamic=is_dynamic))


def make_specification(
    build: Callable[[Any], Any], inputs: Mapping[str, Array], target: str = "iOS15", *, is_dynamic: bool = False
) -> tuple[Any, dict[str, bytes]]:
    """Make a program from the operations that `build` adds. Its argument has the inputs as attributes. No pass of
    coremltools changes the program.

    Returns the program, and its weight files by name.

    `inputs` are examples, which give the shapes and element types. With `is_dynamic`, all sizes are free.
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
    """Raise a program that `build` makes to ONNX, and compute its outputs with ONNX Runtime."""
    package = make_package(build, inputs, target, is_dynamic=is_dynamic)
    executor = OnnxExecutor(package, num_threads=1)
    outputs, _ = executor.run({name: np.asarray(each) for name, each in inputs.items()}, {})
    return [outputs[name] for name in package.function().block.outputs]
