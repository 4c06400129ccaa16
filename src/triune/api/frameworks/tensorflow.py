"""Exports models of Keras, TensorFlow (SavedModel) and TensorFlow Lite, by Keras' own exporter and tf2onnx."""

import contextlib
import logging
import os
import warnings
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from triune.api.frameworks.result import Export, ExporterError, Request, library
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError

_OPSET: Final = 18
"""The newest operator set that tf2onnx (1.17) writes."""

_SIGNATURE: Final = "serving_default"


def export_keras(request: Request) -> Export:
    """Export a keras.Model, or a .keras file. Nodes are named after their layers.

    Raises:
        ExporterError: Keras or tf2onnx cannot export it.
        InvalidArgumentError: the file cannot be read, or holds code, which Keras does not run.
    """
    with _quiet():
        keras = library("keras")
        model = request.source
        if isinstance(model, (str, Path)):
            try:
                model = keras.saving.load_model(str(model), compile=False, safe_mode=True)
            except Exception as error:
                raise InvalidArgumentError(
                    f"Keras does not read '{Path(request.source).name}': {_first_lines(error)}"
                ) from error
        try:
            # Call the model: Keras cannot export one that was never called, such as one that was just loaded.
            _call_once(keras, model, request.inputs)
            model.export(str(request.target), format="onnx", verbose=False, opset_version=_OPSET)
        except Exception as error:
            raise ExporterError(f"Keras cannot export the model: {_first_lines(error)}") from error

    def compute(inputs: Mapping[str, Array]) -> Sequence[Array]:
        with _quiet():
            values = list(inputs.values())
            found = model(values[0] if len(values) == 1 else values, training=False)
            flat: Sequence[Any] = keras.tree.flatten(found)
            return [np.asarray(keras.ops.convert_to_numpy(each)) for each in flat]

    return Export(compute, {})


def _call_once(keras: Any, model: Any, inputs: Mapping[str, Array]) -> None:
    """Call a model on zeros of the shapes of `model.inputs`. A model without `inputs` is called on the examples."""
    if inputs:
        values = list(inputs.values())
        model(values[0] if len(values) == 1 else values, training=False)
        return

    zeros = [
        keras.ops.zeros([1 if size is None else size for size in tensor.shape], tensor.dtype)
        for tensor in model.inputs or ()
    ]
    if zeros:
        model(zeros[0] if len(zeros) == 1 else zeros, training=False)


def export_saved_model(request: Request) -> Export:
    """Export the signature "serving_default" of a SavedModel's folder. Inputs and outputs have the signature's names.

    Raises:
        ExporterError: tf2onnx cannot export it.
        InvalidArgumentError: it has no such signature, or cannot be read.
    """
    with _quiet():
        tensorflow, exporter = library("tensorflow"), library("tf2onnx.convert")
        try:
            loaded = tensorflow.saved_model.load(str(request.source))
        except Exception as error:
            raise InvalidArgumentError(
                f"TensorFlow does not read '{Path(request.source).name}': {_first_lines(error)}"
            ) from error
        if _SIGNATURE not in loaded.signatures:
            raise InvalidArgumentError(
                f"'{Path(request.source).name}' has no signature '{_SIGNATURE}'; it has "
                f"{', '.join(sorted(loaded.signatures)) or 'none'}: export it with one"
            )
        signature = loaded.signatures[_SIGNATURE]
        specs: Mapping[str, Any] = signature.structured_input_signature[1]
        outputs = sorted(signature.structured_outputs)
        named = [tensorflow.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()]

        def flat(*values: Any) -> Any:
            found = signature(**dict(zip(specs, values, strict=True)))
            return [tensorflow.identity(found[name], name=name) for name in outputs]

        function = tensorflow.function(flat, input_signature=named)
        try:
            exporter.from_function(function, input_signature=named, opset=_OPSET, output_path=str(request.target))
        except Exception as error:
            raise ExporterError(f"tf2onnx cannot export the SavedModel: {_first_lines(error)}") from error

    def compute(inputs: Mapping[str, Array]) -> Sequence[Array]:
        found = function(*(tensorflow.constant(inputs[name]) for name in specs))
        return [each.numpy() for each in found]

    return Export(compute, {})


def export_tflite(request: Request) -> Export:
    """Export a .tflite file.

    Raises:
        ExporterError: tf2onnx cannot export it; the message names the operators.
        InvalidArgumentError: the file cannot be read.
    """
    with _quiet():
        tensorflow, exporter = library("tensorflow"), library("tf2onnx.convert")
        try:
            interpreter = tensorflow.lite.Interpreter(model_path=str(request.source))
        except Exception as error:
            raise InvalidArgumentError(
                f"TensorFlow Lite does not read '{Path(request.source).name}': {_first_lines(error)}"
            ) from error
        try:
            exporter.from_tflite(str(request.source), opset=_OPSET, output_path=str(request.target))
        except Exception as error:
            raise ExporterError(f"tf2onnx cannot export the model: {_first_lines(error)}") from error

    def compute(inputs: Mapping[str, Array]) -> Sequence[Array]:
        details = interpreter.get_input_details()
        by_name = {each["name"]: each["index"] for each in details}
        for name, array in inputs.items():
            interpreter.resize_tensor_input(by_name[name], array.shape)
        interpreter.allocate_tensors()
        for name, array in inputs.items():
            interpreter.set_tensor(by_name[name], array)
        interpreter.invoke()
        return [np.array(interpreter.get_tensor(each["index"])) for each in interpreter.get_output_details()]

    return Export(compute, {})


def _first_lines(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:4])}"[:600]


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Suppress TensorFlow's messages about its build and about GPUs."""
    before = {name: os.environ.get(name) for name in ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS")}
    os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"})
    logs = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx", "absl")]
    levels = [each.level for each in logs]
    for each in logs:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(logs, levels, strict=True):
            each.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
