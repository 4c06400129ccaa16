"""L0_http and L0_grpc: APIs and protocols that ask for a header. Model control is explicit, so that what is let through
is seen by what it does; Triton's tests see it by the refusal of another control mode.
"""

import queue
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from support.process import TRIUNE, Served, serve
from support.repositories import add_sub, write_model
from support.triton_tensors import tensors

triton = pytest.mark.triton
ADMIN, INFER = {"admin-key": "admin-value"}, {"infer-key": "infer-value"}
GRPC_ADMIN, GRPC_INFER = (
    {f"triton-grpc-protocol-{name}": value for name, value in each.items()} for each in (ADMIN, INFER)
)
API, PROTOCOL = "This API is restricted, expecting header '", "This protocol is restricted, expecting header '"


@pytest.fixture(scope="module")
def restricted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("restricted")
    write_model(folder, "simple", "max_batch_size: 8", v1=add_sub())
    flags = (
        "--http-restricted-api=model-repository:admin-key=admin-value",
        "--http-restricted-api=inference,metadata:infer-key=infer-value",
        "--grpc-restricted-protocol=model-repository:admin-key=admin-value",
        "--grpc-restricted-protocol=inference,health:infer-key=infer-value",
    )
    with serve(folder, *flags) as served:
        yield served


@pytest.fixture
def http(restricted: Served) -> Iterator[Any]:
    with tritonclient.http.InferenceServerClient(restricted.http) as client:
        yield client


@pytest.fixture
def grpc(restricted: Served) -> Iterator[Any]:
    with tritonclient.grpc.InferenceServerClient(restricted.grpc) as client:
        yield client


def inputs(module: Any) -> list[Any]:
    return tensors(module, {name: np.ones((1, 16), np.int32) for name in ("INPUT0", "INPUT1")})


@triton("L0_http/http_restricted_api_test.py::test_sanity")
def test_what_is_not_named_is_open_over_http(http: Any) -> None:
    assert http.get_inference_statistics("simple") == http.get_inference_statistics("simple", headers=INFER)


@triton("L0_http/http_restricted_api_test.py::test_model_repository")
def test_model_control_over_http(http: Any) -> None:
    with pytest.raises(InferenceServerException, match=f"{API}admin-key'"):
        http.unload_model("simple", headers=INFER)
    with pytest.raises(InferenceServerException, match="explicit model load / unload is not allowed"):
        http.unload_model("simple", headers=ADMIN)


@triton("L0_http/http_restricted_api_test.py::test_metadata")
def test_metadata_over_http(http: Any) -> None:
    with pytest.raises(InferenceServerException, match=API):
        http.get_server_metadata()
    assert http.get_server_metadata(INFER)["name"] == "triune"


@triton("L0_http/http_restricted_api_test.py::test_infer")
def test_an_inference_over_http(http: Any) -> None:
    with pytest.raises(InferenceServerException, match=f"{API}infer-key'"):
        http.infer("simple", inputs(tritonclient.http), headers={"test": "1"})
    answer = http.infer("simple", inputs(tritonclient.http), headers=INFER)
    assert (answer.as_numpy("OUTPUT0") == 2).all()


@triton("L0_grpc/python_unit_test.py::test_sanity")
def test_what_is_not_named_is_open_over_grpc(grpc: Any) -> None:
    assert grpc.get_inference_statistics("simple") == grpc.get_inference_statistics("simple", headers=GRPC_INFER)


@triton("L0_grpc/python_unit_test.py::test_model_repository")
def test_model_control_over_grpc(grpc: Any) -> None:
    with pytest.raises(InferenceServerException, match=f"{PROTOCOL}triton-grpc-protocol-admin-key'"):
        grpc.unload_model("simple", headers=GRPC_INFER)
    with pytest.raises(InferenceServerException, match="explicit model load / unload is not allowed"):
        grpc.unload_model("simple", headers=GRPC_ADMIN)


@triton("L0_grpc/python_unit_test.py::test_health")
def test_health_over_grpc(grpc: Any) -> None:
    with pytest.raises(InferenceServerException, match=PROTOCOL):
        grpc.is_server_live()
    assert grpc.is_server_live(GRPC_INFER)


@triton("L0_grpc/python_unit_test.py::test_infer")
def test_an_inference_over_grpc(grpc: Any) -> None:
    with pytest.raises(InferenceServerException, match=PROTOCOL) as refused:
        grpc.infer("simple", inputs(tritonclient.grpc), headers={"test": "1"})
    assert refused.value.status() == "StatusCode.UNAVAILABLE"
    answer = grpc.infer("simple", inputs(tritonclient.grpc), headers=GRPC_INFER)
    assert (answer.as_numpy("OUTPUT0") == 2).all()


@triton("L0_grpc/python_unit_test.py::test_stream_infer")
def test_a_stream_over_grpc(grpc: Any) -> None:
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    grpc.start_stream(lambda result, error: answers.put(error or result), headers={"test": "1"})
    refusal = answers.get(timeout=60)
    assert isinstance(refusal, InferenceServerException)
    assert PROTOCOL in str(refusal)
    grpc.stop_stream()
    grpc.start_stream(lambda result, error: answers.put(error or result), headers=GRPC_INFER)
    grpc.async_stream_infer("simple", inputs(tritonclient.grpc))
    assert (answers.get(timeout=60).as_numpy("OUTPUT0") == 2).all()
    grpc.stop_stream()


@triton("L0_http/test.sh::--http-restricted-api twice, and unknown")
@triton("L0_grpc/test.sh::--grpc-restricted-protocol twice, and unknown")
@pytest.mark.parametrize("flag", ["--http-restricted-api", "--grpc-restricted-protocol"])
@pytest.mark.parametrize(
    ("first", "words"),
    [
        ("model-repository,health", "restricted {} 'health' can not be specified in multiple config groups"),
        ("model-reposit,health", "unknown restricted {} 'model-reposit'"),
    ],
)
def test_a_wrong_flag_ends_the_start(tmp_path: Path, flag: str, first: str, words: str) -> None:
    flags = [f"{flag}={first}:k1=v1-secret", f"{flag}=metadata,health:k2=v2-secret"]
    command = [TRIUNE, "serve", f"--repository={tmp_path}", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    shown = " ".join((ended.stdout + ended.stderr).split())
    assert words.format("api" if "http" in flag else "protocol") in shown
    assert "secret" not in shown
