"""L0_parameters: reserved parameters, and classification."""

from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from support.process import Served
from support.triton_qa import JSON, MODULES, post, refused, tensor
from support.triton_tensors import tensors

RESERVED = (
    "sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output",
    "triton_enable_empty_final_response", "triton_final_response", "triton_injected_via_header",
)  # fmt: skip


@pytest.mark.triton("L0_parameters/parameters_test.py::test_params_reserved_rejected")
@pytest.mark.parametrize("name", RESERVED)
async def test_reserved_parameters(examples: Served, name: str) -> None:
    if name.startswith("triton_"):
        body = {"inputs": [tensor()], "parameters": {name: "dummy-value"}}
        answer = post(examples, "v2/models/onnx_zero_1_float32/infer", body, JSON)
        refused(answer, 400, "reserved for Triton usage")
    words = "is a reserved parameter and cannot be specified"
    parameters = {name: "dummy-value"}
    for module, address in ((tritonclient.http, examples.http), (tritonclient.grpc, examples.grpc)):
        inputs = tensors(module, {"INPUT0": np.ones((1, 8), np.float32)})
        with module.InferenceServerClient(address) as client, pytest.raises(InferenceServerException, match=words):
            client.infer("onnx_zero_1_float32", inputs, parameters=parameters)
        async with module.aio.InferenceServerClient(address) as client:
            with pytest.raises(InferenceServerException, match=words):
                await client.infer("onnx_zero_1_float32", inputs, parameters=parameters)


def classify(served: Served, protocol: str, model: str, array: np.ndarray) -> Any:
    module = MODULES[protocol]
    outputs = [module.InferRequestedOutput("OUTPUT0", class_count=5)]
    with module.InferenceServerClient(getattr(served, protocol)) as client:
        return client.infer(model, tensors(module, {"INPUT0": array}), outputs=outputs)


@pytest.mark.triton("L0_parameters/class_count_test.py::test_classificattion")
def test_the_largest_of_equal_values(examples: Served, protocol: str) -> None:
    result = classify(examples, protocol, "onnx_zero_1_float32", np.ones((1, 8), np.float32))
    output = result.get_output("OUTPUT0")
    assert (output["datatype"] if protocol == "http" else output.datatype) == "BYTES"
    classes = result.as_numpy("OUTPUT0")
    assert classes.shape == (1, 5)
    assert all(each.startswith(b"1.000000:") for each in classes.ravel())


@pytest.mark.triton("L0_parameters/class_count_test.py::test_classificattion_unsupported_data_type")
def test_classes_of_strings(examples: Served, protocol: str) -> None:
    words = "class result not available for output due to unsupported type 'BYTES'"
    with pytest.raises(InferenceServerException, match=words):
        classify(examples, protocol, "simple_identity", np.array([[b"test"] * 8], np.object_))


@pytest.mark.triton("L0_parameters/class_count_test.py::test_classification_output_tensor_too_large")
def test_classes_of_more_than_is_sorted(examples: Served, protocol: str) -> None:
    with pytest.raises(InferenceServerException, match="classification output tensor too large"):
        classify(examples, protocol, "onnx_zero_1_float32", np.ones((1, 1_000_001), np.float32))
