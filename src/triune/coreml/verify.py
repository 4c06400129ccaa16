"""Is a converted model the one that it was made of? Both on the same sample inputs."""

import numpy as np
from onnx import ModelProto

from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering.lower import Lowered
from triune.coreml.lowering.options import LowerOptions
from triune.coreml.mil import Array, StateType
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import Package, read_package
from triune.coreml.raising import new_state
from triune.graph.check import sample_inputs
from triune.graph.conversion.compared import FREE_SIZE, OutputError, compared, run_onnx, sized
from triune.graph.conversion.constants import typed_constants
from triune.graph.passes.narrow import narrow_array


def verify_lowered(model: ModelProto, lowered: Lowered, options: LowerOptions) -> list[OutputError]:
    """An ONNX model in ONNX Runtime, beside the package made of it in Triune's own.

    Raises:
        UnsupportedError: an input is none that can be made up, or a runtime does not do the model.
        InternalError: the result is of another shape.
    """
    given = sample_inputs(sized(model, options.shapes), free_size=FREE_SIZE)
    given.update(typed_constants(model, options.constants))
    expected = run_onnx(model, given)
    inputs = {lowered.inputs[name]: _passed(name, array) for name, array in given.items() if name in lowered.inputs}
    results, _ = OnnxExecutor(read_package(lowered.path)).run(inputs, {})
    return [compared(name, array, results[lowered.outputs[name]]) for name, array in expected.items()]


def verify_raised(package: Package, function: str | None, model: ModelProto) -> list[OutputError]:
    """A function of a package in Triune's reference interpreter, beside the ONNX model raised of it in ONNX Runtime.

    Raises:
        UnsupportedError: the interpreter or ONNX Runtime does not do the model.
        InternalError: the result is of another shape.
    """
    states = [each.name for each in package.function(function).inputs if isinstance(each.type, StateType)]
    given = sample_inputs(model, free_size=FREE_SIZE)
    inputs = {name: array for name, array in given.items() if name not in states}
    outputs, after = Interpreter(package, function).run(inputs, {name: given[name] for name in states})
    results = run_onnx(model, given)
    expected = {**outputs, **{new_state(name): array for name, array in after.items()}}
    return [compared(name, array, results[name]) for name, array in expected.items() if name in results]


def _passed(name: str, array: Array) -> Array:
    """As the package takes it: whole numbers and truths as int32, no scalars."""
    narrow = narrow_array(name, array)
    narrow = narrow.astype(np.int32) if narrow.dtype == np.bool_ else narrow
    return narrow.reshape(1) if narrow.ndim == 0 else narrow
