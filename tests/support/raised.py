"""Computes raised programs in ONNX Runtime, including those with bf16."""

import ctypes
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, checker


def computed(model: ModelProto, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the outputs by name. Inputs that the model does not have are ignored."""
    checker.check_model(model)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for value in session.get_inputs():
        binding.bind_ortvalue_input(value.name, _given(np.asarray(inputs[value.name])))
    names = [value.name for value in session.get_outputs()]
    for name in names:
        binding.bind_output(name)
    session.run_with_iobinding(binding)
    return {name: _read(value) for name, value in zip(names, binding.get_outputs(), strict=True)}


def _given(array: Any) -> Any:
    if array.dtype == ml_dtypes.bfloat16:
        plain = np.ascontiguousarray(array).view(np.uint16)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(plain, TensorProto.BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(np.array(array, order="C"))


def _read(value: Any) -> Any:
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()
    shape = tuple(value.shape())
    count = int(np.prod(shape))
    words = (ctypes.c_uint16 * count).from_address(value.data_ptr())
    return np.array(words, np.uint16).view(ml_dtypes.bfloat16).reshape(shape)
