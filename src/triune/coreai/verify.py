"""Verify a conversion: run the model and the program on the same inputs, the program in Apple's interpreter.

If the interpreter does not accept images, as on Linux, a program with images is raised to ONNX and run by ONNX Runtime
instead: see `is_judged_by_apple`. So is a large fp16 program where the comparison has to be quick.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import ModelProto

from triune.core.datatypes import Array
from triune.core.errors import InternalError, UnavailableError, UnsupportedError
from triune.coreai.executable import takes_images
from triune.coreai.images import CHANNELS
from triune.coreai.limits import Limits
from triune.coreai.lowering.image_options import ImageOptions
from triune.coreai.lowering.options import LowerOptions
from triune.coreai.model import Model
from triune.graph.audit import InputSet
from triune.graph.blame import Gates, Verified, verify_halved
from triune.graph.conversion.constants import typed_constants
from triune.graph.conversion.options import Precision
from triune.graph.conversion.shapes import InputShape, Range
from triune.graph.conversion.text import numbers_of
from triune.graph.half_rounding import with_half_rounding
from triune.graph.passes.narrow_values import narrow_array
from triune.graph.precision import TOLERANCES, precision_of
from triune.graph.state_names import new_state
from triune.graph.verify import OnnxModel, OutputVerdict, narrow_samples_of, samples_of, sized_samples_of, verify

_SLOW_BYTES = 4 << 20
"""An fp16 asset of more bytes takes Apple's interpreter (1.0.0b3) seconds for each set of inputs: 5 s for EfficientNet
of 9 MB, 23 s for MiniLM of 45 MB, where ONNX Runtime takes 0.2 s for the raised program.
"""


def is_judged_by_apple(options: LowerOptions) -> bool:
    """Whether Apple's interpreter runs the program. Otherwise it is raised to ONNX, and ONNX Runtime runs that."""
    return not options.images or takes_images()


def is_slow(options: LowerOptions, path: Path) -> bool:
    """Whether Apple's interpreter is too slow for a comparison that should end within a minute."""
    num_bytes = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return options.precision is not Precision.FP32 and num_bytes > _SLOW_BYTES


def verify_lowered(
    model: ModelProto,
    path: Path,
    function: str,
    options: LowerOptions,
    given: Mapping[str, Array],
    samples: Sequence[Mapping[str, Array]] = (),
    *,
    is_hurried: bool = False,
) -> Verified:
    """Compare an ONNX model in ONNX Runtime with its lowered function in Apple's interpreter (`is_judged_by_apple`).

    Floats that become an image are first rounded to its bytes, for both.

    Args:
        model: the source model.
        path: the asset.
        function: the name of the function.
        options: the options of the conversion.
        given: inputs and states by name. The others are made up.
        samples: whole sets of inputs of the user's; if there are any, only these are compared.
        is_hurried: whether ONNX Runtime computes the function, raised to ONNX, if the interpreter would be slow
            (`is_slow`).

    Raises:
        InvalidArgumentError: an array has a shape that the function does not take.
        UnsupportedError: values cannot be made up for an input, or ONNX Runtime cannot run the model.
        InternalError: an output has another shape than the model's, or Apple's interpreter crashed.
    """
    model, _ = numbers_of(model)
    known = {**given, **typed_constants(model, options.constants)}
    precision = "fp32" if options.precision is Precision.FP32 else "fp16"
    tolerance = max(TOLERANCES[precision], TOLERANCES[precision_of(model)])
    sets = samples_of(model, options.shapes, known, samples, is_half=tolerance > TOLERANCES["fp32"])
    sets = [pictured(each, options, given) for each in sets]
    # Make no `narrow` inputs for a model with images: in them, numbers are nearly equal to constants or to each other,
    # which pixels, being whole bytes, cannot be.
    makes_up = precision == "fp16" and not samples
    narrow = narrow_samples_of(model, options.shapes, known) if makes_up and not options.images else []
    sized = sized_samples_of(model, options.shapes, known, options.images) if makes_up else []
    gates = Gates(model)
    source = OnnxModel(gates.model, tolerance)

    def expected(arrays: Mapping[str, Array]) -> dict[str, Array]:
        outputs = source.run(arrays)
        shown = {name: np.clip(np.rint(outputs[name]), 0, 255) for name in options.images if name in outputs}
        return {**outputs, **shown}

    is_apples = is_judged_by_apple(options) and not (is_hurried and is_slow(options, path))
    executor = "interpreter" if is_apples else "onnxruntime"
    with Model(path, function=function, executor=executor) as program:
        result = functools.partial(computed, program, options)
        return verify_halved(model, options, sets, narrow, sized, source, expected, gates, result, tolerance)


def computed(program: Model, options: LowerOptions, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Run a program.

    Returns:
        its outputs and the next values of its states, by the names in the model.
    """
    inputs = {name: narrow_array(name, array) for name, array in arrays.items() if name not in options.constants}
    inputs |= {name: image.nearest(name, arrays[name]) for name, image in options.images.items() if name in arrays}
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
        if name in results:
            results[name] = image.floats(results[name])
    return results


def pictured(each: InputSet, options: LowerOptions, given: Mapping[str, Array]) -> InputSet:
    """Replace the floats of image inputs by floats that images can have: those nearest to the given floats, or random
    ones.
    """
    arrays = dict(each.arrays)
    for name, image in options.images.items():
        if name in arrays:
            picture = image.nearest(name, arrays[name]) if name in given else _made_up(image, arrays[name])
            arrays[name] = image.floats(picture).astype(arrays[name].dtype)
    return replace(each, arrays=arrays)


def _made_up(image: ImageOptions, floats: Array) -> Array:
    """Make random bytes (height, width, channels) for an image of the size of `floats` (1, 3, height, width)."""
    shape = (*floats.shape[2:], len(CHANNELS[image.format]))
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def verify_raised(path: Path, function: str, model: ModelProto, given: Mapping[str, Array]) -> list[OutputVerdict]:
    """Compare a function in Apple's interpreter with its raised ONNX model in ONNX Runtime.

    Args:
        path: the asset.
        function: the name of the function.
        model: the ONNX model raised from the function.
        given: inputs and states by name. The others are made up.

    Raises:
        As `verify_lowered`.
    """
    tolerance = TOLERANCES[precision_of(model)]
    result = OnnxModel(with_half_rounding(model), tolerance)
    with Model(path, function=function, executor="interpreter") as program:
        limits = declared_shapes(program)
        sets = samples_of(model, limits, given, is_half=tolerance > TOLERANCES["fp32"])

        def source(arrays: Mapping[str, Array]) -> dict[str, Array]:
            state = program.make_state()
            inputs = dict(arrays)
            for name in state.names:
                state.write(name, inputs.pop(name))
            try:
                outputs = program.predict(inputs, state if state.names else None)
            except (InternalError, UnavailableError) as error:
                raise UnsupportedError(
                    "Apple's interpreter ended its process over these inputs, as it does where an integer is "
                    "divided by zero, so it was not verified; give inputs that it computes with --input"
                ) from error
            return {**outputs, **{new_state(name): state.read(name) for name in state.names}}

        return verify(sets, source, result.run, result, tolerance)


def declared_shapes(program: Model) -> dict[str, InputShape]:
    """The shapes that inputs of a function may have, by input, if the conversion recorded them."""
    return {name: _shape(each) for name, each in program.interface.limits.items()}


def _shape(limits: Limits) -> InputShape:
    return InputShape(tuple(tuple(dim if isinstance(dim, int) else Range(*dim) for dim in choice) for choice in limits))
