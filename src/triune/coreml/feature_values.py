"""Convert the inputs of a caller to a program's tensors, and outputs back. Shapes and types are checked here."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.description import ArrayFeature, ColorSpace, DictionaryFeature, Feature, ImageFeature, ScalarFeature
from triune.coreml.mil import Array, Constant, DType, Function, TensorType


def to_program(feature: Feature, kind: TensorType, value: Any) -> Array:
    """Convert an input to the program's tensor.

    Args:
        feature: the description of the input.
        kind: the type that the program declares.
        value: an array or nested lists for a multi-array; for an image a Pillow image, or a uint8 array of
            (height, width) for gray and (height, width, 3), red first, for color.

    Raises:
        InvalidArgumentError: the value's type or shape is not what the interface allows, or a number is outside the
            range of the dtype.
        UnsupportedError: the feature is neither a multi-array nor an image.
    """
    match feature.type:
        case ArrayFeature() as array:
            return to_array(feature.name, array, value).astype(kind.dtype.numpy, copy=False)
        case ImageFeature() as image:
            return _from_image(feature.name, image, value).astype(kind.dtype.numpy)
        case other:
            raise UnsupportedError(f"input '{feature.name}': programs take no input of type {type(other).__name__}")


def default_of(feature: Feature, kind: TensorType) -> Array:
    """The value of an optional input that is omitted: its default value, or zeros, in the default shape.

    Raises:
        InvalidArgumentError: the input is not optional, or it is an image.
    """
    if not feature.is_optional or not isinstance(feature.type, ArrayFeature):
        raise InvalidArgumentError(f"input '{feature.name}' is missing: give {describe(feature)}")
    return np.full(feature.type.shape, feature.type.default or 0, kind.dtype.numpy)


def to_array(name: str, feature: ArrayFeature, value: Any) -> Array:
    """Convert a value to an array of the feature's type, and check its shape.

    int64 is converted to int32 if all numbers are in its range. Floats for an integer input lose their fraction, as in
    Core ML (coremltools' TestFuseOnehotMatmulToGather passes fractions to int32 on a Mac). Floats are rounded to
    narrower floats; in fp16 they may become infinite, as in Core ML.

    Raises:
        InvalidArgumentError: the value is not an array of numbers, has another shape, or a number does not fit.
    """
    try:
        array: Array = np.asarray(value)
    except ValueError as error:
        raise InvalidArgumentError(f"'{name}' is not an array: {error}") from error
    dtype = feature.dtype.numpy
    if array.dtype.kind not in "biuf" and array.dtype != DType.BF16.numpy:
        raise InvalidArgumentError(f"'{name}' is of {array.dtype}; it must be of {feature.dtype.value}")
    has_shape = bool(feature.shape or feature.is_flexible)
    if has_shape and not feature.allows(array.shape):
        raise InvalidArgumentError(
            f"{_refusal(feature, array.shape)}: '{name}' has shape {list(array.shape)}; it must have {feature.limits()}"
        )
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(dtype)
    if array.dtype.kind == "b" or not array.size:
        return converted
    if dtype.kind == "i":
        limits = np.iinfo(dtype)
        # The comparison is false for NaN, so that NaN is refused.
        if not (np.trunc(array.min()) >= limits.min and np.trunc(array.max()) <= limits.max):
            raise InvalidArgumentError(
                f"'{name}' has values that {feature.dtype.value} cannot hold: it is of {array.dtype}, "
                f"from {array.min()} to {array.max()}"
            )
    elif feature.dtype is DType.FP32 and bool(np.any(np.isinf(converted) & np.isfinite(array))):
        raise InvalidArgumentError(f"'{name}' has values that fp32 cannot hold: up to {np.abs(array).max()}")
    return converted


def from_program(feature: Feature, array: Array, classes: Sequence[Any]) -> Any:
    """Convert an output to the value that the caller gets.

    Core ML has no arrays of rank 0: such an array is returned with the shape (1,).

    Args:
        feature: the description of the output.
        array: the program's tensor; see `Executor.run` for labels and dictionaries.
        classes: a classifier's labels, in the order of its probabilities.

    Returns:
        An array for a multi-array; for an image uint8 of (height, width) or (height, width, 3), red first (fp16 for
        gray fp16); a str or int for a label, and a dict of floats by label for a dictionary.

    Raises:
        UnsupportedError: the feature has another type.
    """
    match feature.type:
        case ArrayFeature(dtype):
            return np.atleast_1d(array.astype(dtype.numpy, copy=False))
        case ImageFeature() as image:
            return _to_image(image, array)
        case ScalarFeature():
            return array.reshape(()).item()
        case DictionaryFeature():
            return dict(zip(classes, (float(each) for each in array.ravel()), strict=True))
        case other:
            raise UnsupportedError(f"output '{feature.name}': programs have none of type {type(other).__name__}")


def classes_of(function: Function) -> tuple[Any, ...]:
    """The labels of a classifier, in the order of its probabilities; empty if it is not a classifier."""
    constants = {each.name: each for each in function.block.operations if each.op == "const"}
    for operation in function.block.operations:
        if operation.op == "classify":
            (argument,) = operation.inputs["classes"]
            given = argument if isinstance(argument, Constant) else constants[argument.name].attributes["val"]
            return tuple(label.item() for label in given.value)
    return ()


def describe(feature: Feature) -> str:
    """The type and shapes of a feature, for messages: "fp32 of [1, 3]"."""
    match feature.type:
        case ArrayFeature() as array:
            return f"{array.dtype.value} of {array.limits()}"
        case ImageFeature() as image:
            return f"an image ({image.color_space.value}) of {image.limits()}"
        case other:
            return type(other).__name__


def _refusal(feature: ArrayFeature, shape: tuple[int, ...]) -> str:
    """Core ML's own message for a shape that is not allowed.

    For flexible shapes these are the messages that coremltools' tests expect (test_torch_conversion_api.py), for fixed
    shapes those in cactus-compute/cactus#570.
    """
    given = " x ".join(map(str, shape))
    if feature.shapes:
        return f"MultiArray Shape ({given}) was not in enumerated set of allowed shapes"
    if len(feature.bounds) == len(shape):
        for axis, (size, bounds) in enumerate(zip(shape, feature.bounds, strict=True)):
            if size not in bounds:
                upper = "inf" if bounds.upper is None else bounds.upper
                return f"Size ({size}) of dimension ({axis}) is not in allowed range ({bounds.lower}..{upper})"
    wanted = " x ".join(map(str, feature.shape))
    return f"MultiArray shape ({given}) does not match the shape ({wanted}) specified in the model description"


def _from_image(name: str, feature: ImageFeature, value: Any) -> Array:
    if hasattr(value, "convert") and hasattr(value, "mode"):
        # Recognize Pillow images without importing Pillow.
        value = value.convert(_MODES[feature.color_space])
    pixels: Array = np.asarray(value)
    is_float = feature.color_space is ColorSpace.GRAYSCALE_FLOAT16
    want = "floats" if is_float else "uint8"
    if (pixels.dtype.kind != "f") if is_float else (pixels.dtype != np.uint8):
        raise InvalidArgumentError(f"image '{name}' is of {pixels.dtype}; it must be of {want}, or a Pillow image")
    num_channels = feature.color_space.num_channels
    if num_channels == 1 and pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] != num_channels:
        shape = "(height, width)" if num_channels == 1 else "(height, width, 3)"
        raise InvalidArgumentError(f"image '{name}' has shape {list(pixels.shape)}; it must have {shape}")
    height, width = pixels.shape[:2]
    if not feature.allows(width, height):
        # Core ML's message begins with these words (huggingface/coreml-examples#5).
        raise InvalidArgumentError(
            f"Image size {width} x {height} not in allowed set of image sizes: image '{name}' must be "
            f"{feature.limits()}: resize it"
        )
    if feature.color_space is ColorSpace.BGR:
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


_MODES = {
    ColorSpace.GRAYSCALE: "L",
    ColorSpace.GRAYSCALE_FLOAT16: "F",
    ColorSpace.RGB: "RGB",
    ColorSpace.BGR: "RGB",
}


def _to_image(feature: ImageFeature, array: Array) -> Array:
    pixels = array.reshape(array.shape[-3:]).transpose(1, 2, 0)
    if feature.color_space is ColorSpace.BGR:
        pixels = pixels[:, :, ::-1]
    if feature.color_space.num_channels == 1:
        pixels = pixels[:, :, 0]
    if feature.color_space is ColorSpace.GRAYSCALE_FLOAT16:
        return pixels.astype(np.float16)
    return np.clip(np.rint(np.nan_to_num(pixels.astype(np.float32))), 0, 255).astype(np.uint8)
