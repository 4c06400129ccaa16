"""L0_input_validation: inputs that are missing or of another size, and models' names."""

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc
from onnx import helper
from tritonclient.utils import InferenceServerException

from support.process import Served, serve
from support.repositories import write_model
from support.triton_qa import FP32, add_sub_strings, cases_of, model_bytes, zero
from support.triton_tensors import tensors

triton = cases_of("L0_input_validation/input_validation_test.py::")


def summing(num_inputs: int, num_optional: int) -> tuple[str, bytes]:
    """A config and a model: OUTPUT0 is how many numbers its inputs have, of which the last may be left out."""
    names = [f"INPUT{index}" for index in range(num_inputs)]
    optional = names[num_inputs - num_optional :]
    graph = helper.make_graph(
        [
            helper.make_node("Concat", names, ["all"], axis=0),
            helper.make_node("ReduceSum", ["all"], ["OUTPUT0"], keepdims=1),
        ],
        "summing",
        [helper.make_tensor_value_info(name, FP32, ["n" + name]) for name in names],
        [helper.make_tensor_value_info("OUTPUT0", FP32, [1])],
        [helper.make_tensor(name, FP32, [1], [0.0]) for name in optional],
    )
    inputs = [
        f'{{ name: "{name}" data_type: TYPE_FP32 dims: -1 {"optional: true" if name in optional else ""} }}'
        for name in names
    ]
    return f'backend: "onnxruntime" input [ {", ".join(inputs)} ]', model_bytes(graph)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("validated")
    for name, num_inputs, num_optional in (
        ("input_all_required", 3, 0),
        ("input_optional", 4, 1),
        ("input_all_optional", 3, 3),
    ):
        config, model = summing(num_inputs, num_optional)
        write_model(folder, name, config, v1=model)
    write_model(folder, "pt_identity", "max_batch_size: 8", v1=zero(dims=[8]))
    write_model(folder, "onnx_object_int32_int32", "max_batch_size: 8", v1=add_sub_strings())
    with serve(folder, "--model-control-mode=explicit", "--load-model=*") as running:
        yield running


@pytest.fixture
def client(served: Served) -> Iterator[tritonclient.grpc.InferenceServerClient]:
    with tritonclient.grpc.InferenceServerClient(served.grpc) as made:
        yield made


ALL = "missing required input(s) ['INPUT0','INPUT1','INPUT2']. Please provide all required input(s)."
TWO = "missing required input(s) ['INPUT1','INPUT2']. Please provide all required input(s)."
RANGE = "expected number of inputs between 3 and 4 but got"


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        pytest.param(
            "input_all_required", [],
            f"expected 3 inputs but got 0 inputs for model 'input_all_required'. Got input(s) [], but {ALL}",
            marks=triton("test_input_validation_required_empty"),
        ),
        pytest.param(
            "input_optional", [], f"{RANGE} 0 inputs for model 'input_optional'. Got input(s) [], but {ALL}",
            marks=triton("test_input_validation_optional_empty"),
        ),
        pytest.param(
            "input_all_required", ["INPUT0"],
            f"expected 3 inputs but got 1 inputs for model 'input_all_required'. Got input(s) ['INPUT0'], but {TWO}",
            marks=triton("test_input_validation_required_missing"),
        ),
        pytest.param(
            "input_optional", ["INPUT0"],
            f"{RANGE} 1 inputs for model 'input_optional'. Got input(s) ['INPUT0'], but {TWO}",
            marks=triton("test_input_validation_optional"),
        ),
    ],
)  # fmt: skip
def test_missing_inputs(
    client: tritonclient.grpc.InferenceServerClient, model: str, given: list[str], words: str
) -> None:
    inputs = tensors(tritonclient.grpc, {name: np.zeros(1, np.float32) for name in given})
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, inputs)
    assert words in caught.value.message()


@triton("test_input_validation_all_optional")
def test_no_input_at_all(client: tritonclient.grpc.InferenceServerClient) -> None:
    assert client.infer("input_all_optional", []).get_response().outputs[0].name == "OUTPUT0"


@triton("test_input_shape_validation")
def test_bytes_that_are_not_the_shapes(client: tritonclient.grpc.InferenceServerClient) -> None:
    client.infer("pt_identity", tensors(tritonclient.grpc, {"INPUT0": np.zeros((1, 8), np.float32)}))
    inputs = tensors(tritonclient.grpc, {"INPUT0": np.zeros((1, 10), np.float32)})
    inputs[0].set_shape((1, 8))
    words = "input byte size mismatch for input 'INPUT0' for model 'pt_identity'. Expected 32, got 40"
    with pytest.raises(InferenceServerException, match=words):
        client.infer("pt_identity", inputs)


@triton("test_input_string_shape_validation")
@pytest.mark.parametrize(
    ("num_elements", "words"),
    [
        (14, "expected 16 string elements for inference input 'INPUT[01]' for model 'onnx_object_int32_int32', got 14"),
        (
            18,
            "unexpected number of string elements 17 for inference input 'INPUT[01]' for model "
            "'onnx_object_int32_int32', expecting 16",
        ),
    ],
)
def test_strings_that_are_not_the_shapes(
    client: tritonclient.grpc.InferenceServerClient, num_elements: int, words: str
) -> None:
    numbers = np.array([[b"7"] * num_elements], np.object_)
    inputs = tensors(tritonclient.grpc, {"INPUT0": numbers, "INPUT1": numbers})
    for each in inputs:
        each.set_shape((1, 16))
    # Triton tells the second input, since it keeps them in no order.
    with pytest.raises(InferenceServerException, match=words):
        client.infer("onnx_object_int32_int32", inputs)


ESCAPING = [
    "../etc", "a/../b", "../../etc/passwd", "../../../../etc", "model/..", "..", "/etc/passwd", "model/subdir",
    "model/", " ..", ".. ",
]  # fmt: skip
TRAVERSAL = "model name must not contain path traversal characters"


@triton("test_model_name_invalid_load", "test_model_name_invalid_unload")
@pytest.mark.parametrize("name", ESCAPING)
def test_names_that_lead_elsewhere(client: tritonclient.grpc.InferenceServerClient, name: str) -> None:
    with pytest.raises(InferenceServerException, match=TRAVERSAL):
        client.load_model(name)
    error = None
    try:
        client.unload_model(name)
    except InferenceServerException as caught:
        error = caught
    assert TRAVERSAL not in str(error)


@triton("test_model_name_empty_load", "test_model_name_whitespace_only_load")
@pytest.mark.parametrize("name", ["", " ", "   ", "\t", "\n", "\r", "\f", "\v", " \t \n "])
def test_names_of_nothing(client: tritonclient.grpc.InferenceServerClient, name: str) -> None:
    with pytest.raises(
        InferenceServerException, match="Model name cannot be empty. Please enter a valid name to deploy."
    ):
        client.load_model(name)


@triton("test_model_name_valid")
@pytest.mark.parametrize("name", ["model123", "model.version1", "...", "..my_model", "model..1", "model....1"])
def test_names_that_are_not_there(client: tritonclient.grpc.InferenceServerClient, name: str) -> None:
    with pytest.raises(InferenceServerException, match="failed to poll from model repository") as caught:
        client.load_model(name)
    assert "path traversal characters" not in caught.value.message()
