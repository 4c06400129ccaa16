"""Is a converted program the one that it was made of? Both on the same inputs; Apple's interpreter is the referee."""

from collections.abc import Mapping
from pathlib import Path

from onnx import ModelProto

from triune.core.datatypes import Array
from triune.coreai.lowering.options import LowerOptions
from triune.coreai.model import Model
from triune.graph.check import sample_inputs
from triune.graph.conversion.compared import FREE_SIZE, OutputError, compared, run_onnx, sized
from triune.graph.conversion.constants import typed_constants
from triune.graph.passes.narrow import narrow_array
from triune.graph.state_names import new_state


def verify_lowered(
    model: ModelProto, path: Path, function: str, options: LowerOptions, given: Mapping[str, Array]
) -> list[OutputError]:
    """An ONNX model in ONNX Runtime, beside the function made of it in Apple's interpreter.

    Args:
        model: the source.
        path: the asset.
        function: its name.
        options: how it was made.
        given: inputs and states by name. The others are made up.

    Raises:
        InvalidArgumentError: an array has a shape that the function does not take.
        UnsupportedError: an input is none that can be made up, or ONNX Runtime does not do the model.
        InternalError: the result is of another shape, or Apple's interpreter ended its process.
    """
    samples = sample_inputs(sized(model, options.shapes, given), free_size=FREE_SIZE)
    samples.update(given)
    samples.update(typed_constants(model, options.constants))
    expected = run_onnx(model, samples)
    inputs = {name: narrow_array(name, array) for name, array in samples.items() if name not in options.constants}
    with Model(path, function=function, executor="interpreter") as program:
        state = program.make_state() if options.states else None
        for name in options.states:
            if state is not None:
                state.write(name, inputs.pop(name))
        known = {spec.name for spec in program.interface.inputs}
        results = program.predict({name: array for name, array in inputs.items() if name in known}, state)
        for name, following in options.states.items():
            if state is not None:
                results[following] = state.read(name)
    return [compared(name, array, results[name]) for name, array in expected.items()]


def verify_raised(path: Path, function: str, model: ModelProto, given: Mapping[str, Array]) -> list[OutputError]:
    """A function in Apple's interpreter, beside the ONNX model raised of it in ONNX Runtime.

    Args:
        path: the asset.
        function: its name.
        model: raised of that.
        given: inputs and states by name. The others are made up.

    Raises:
        As `verify_lowered`.
    """
    samples = sample_inputs(sized(model, {}, given), free_size=FREE_SIZE)
    samples.update(given)
    actual = run_onnx(model, samples)
    with Model(path, function=function, executor="interpreter") as program:
        state = program.make_state()
        for name in state.names:
            state.write(name, samples.pop(name))
        expected = program.predict(samples, state if state.names else None)
        expected |= {new_state(name): state.read(name) for name in state.names}
    return [compared(name, array, actual[name]) for name, array in expected.items()]
