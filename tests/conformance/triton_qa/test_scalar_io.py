"""L0_scalar_io: a model of scalars behind a config that gives them dimensions of 1."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc

from support.process import Served, serve
from support.repositories import write_model
from support.triton_qa import scalar, states
from support.triton_tensors import tensors


def config(dims: str) -> str:
    return (
        f'backend: "onnxruntime" input {{ name: "INPUT" data_type: TYPE_FP32 dims: [ {dims} ] }} '
        f'output {{ name: "OUTPUT" data_type: TYPE_FP32 dims: [ {dims} ] }}'
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("scalars")
    write_model(folder, "onnx_scalar_1dim", config("1"), v1=scalar())
    write_model(folder, "onnx_scalar_2dim", config("1, 1"), v1=scalar())
    write_model(folder, "onnx_scalar_of_two", config("2"), v1=scalar())
    with serve(folder, "--model-control-mode=explicit", "--load-model=*") as running:
        yield running


@pytest.mark.triton("L0_scalar_io/scalar_test.py::test_scalar_io")
@pytest.mark.parametrize("num_dims", [1, 2])
def test_a_scalar(served: Served, num_dims: int) -> None:
    array = np.ones([1] * num_dims, np.float32)
    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        result = client.infer(f"onnx_scalar_{num_dims}dim", tensors(tritonclient.grpc, {"INPUT": array}))
    np.testing.assert_allclose(result.as_numpy("OUTPUT"), array)


@pytest.mark.triton("L0_scalar_io/test.sh::dims of more than one element")
def test_dims_of_more_than_one_element(served: Served, tmp_path: Path) -> None:
    assert states(served)["onnx_scalar_of_two/1"] == "UNAVAILABLE"
    write_model(tmp_path, "onnx_scalar_1dim", config("2"), v1=scalar())
    with pytest.raises(AssertionError, match="the server ended with 1"), serve(tmp_path, "--exit-on-error=true"):
        pass
