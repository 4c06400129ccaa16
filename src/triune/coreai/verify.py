"""Is a converted program the one that it was made of? Both on the same inputs; Apple's interpreter is the referee.

Where it takes no images, as on Linux, what is raised of a program with images stands in for it: `is_judged_by_apple`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto

from triune.core.datatypes import Array
from triune.coreai.executable import takes_images
from triune.coreai.images import CHANNELS
from triune.coreai.lowering.image_options import ImageOptions
from triune.coreai.lowering.options import LowerOptions
from triune.coreai.model import Model
from triune.graph.check import sample_inputs
from triune.graph.conversion.compared import FREE_SIZE, OutputError, compared, run_onnx, sized
from triune.graph.conversion.constants import typed_constants
from triune.graph.passes.narrow import narrow_array
from triune.graph.state_names import new_state


def is_judged_by_apple(options: LowerOptions) -> bool:
    """Does Apple's interpreter compute what was converted so, or what is raised of it?"""
    return not options.images or takes_images()


def verify_lowered(
    model: ModelProto, path: Path, function: str, options: LowerOptions, given: Mapping[str, Array]
) -> list[OutputError]:
    """An ONNX model in ONNX Runtime, beside the function made of it in Apple's interpreter; see `is_judged_by_apple`.

    Floats that become an image are those of the picture that is nearest to them, on both sides.

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
    pictures: dict[str, Array] = {}
    for name, image in options.images.items():
        if name in samples:
            pictures[name] = image.nearest(name, samples[name]) if name in given else _made_up(image, samples[name])
            samples[name] = image.floats(pictures[name]).astype(samples[name].dtype)
    expected = run_onnx(model, samples)
    inputs = {name: narrow_array(name, array) for name, array in samples.items() if name not in options.constants}
    inputs |= pictures
    executor = "interpreter" if is_judged_by_apple(options) else "onnxruntime"
    with Model(path, function=function, executor=executor) as program:
        state = program.make_state() if options.states else None
        for name in options.states:
            if state is not None:
                state.write(name, inputs.pop(name))
        known = {spec.name for spec in program.interface.inputs}
        results = program.predict({name: array for name, array in inputs.items() if name in known}, state)
        for name, following in options.states.items():
            if state is not None:
                results[following] = state.read(name)
    for name, image in options.images.items():
        if name in expected:
            results[name] = image.floats(results[name])
            expected[name] = np.clip(np.rint(expected[name]), 0, 255)
    return [compared(name, array, results[name]) for name, array in expected.items()]


def _made_up(image: ImageOptions, floats: Array) -> Array:
    """Noise, of the size of floats (1, 3, height, width)."""
    shape = (*floats.shape[2:], len(CHANNELS[image.format]))
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


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
