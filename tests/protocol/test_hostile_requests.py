"""Requests whose values or sizes end ONNX Runtime's process, and models that do: the server serves on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from support.graphs import model_of
from support.process import Served, serve
from support.repositories import add_sub, ending_itself, write_model

LEAST = np.iinfo(np.int64).min
_WEIGHTS = f"float[1,4,2] w = {{{', '.join(['0.5'] * 8)}}}, float[1,4,1] r = {{{', '.join(['0.5'] * 4)}}}"
_RECURRENT = "y, h, c = LSTM<hidden_size = 1>({}, w, r)"
_SECOND = "i = Constant<value_ints = [1]>() e = Constant<value_ints = [9]>() z = Slice(x, i, e, i)"

MODELS = {
    "quotient": "g (int64[3] x, int64[3] d) => (int64[3] y) { y = Div(x, d) }",
    "recurrent": f"g (float[s,b,2] x) => (float[s,1,b,1] y) <{_WEIGHTS}> {{ {_RECURRENT.format('x')} }}",
    # Of one row, nothing is left.
    "sliced": f"g (float[s,b,2] x) => (float[s,1,d,1] y) <{_WEIGHTS}> {{ {_SECOND} {_RECURRENT.format('z')} }}",
    "spectrum": """g (float[1,16] x, int64[1] l) => (float[1,m,k,2] y) <int64 p = {4}> {
        i = Constant<value_ints = [2]>() z = Unsqueeze(x, i) n = Squeeze(l) y = STFT(z, p, , n) }""",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("repository")
    for name, text in MODELS.items():
        write_model(folder, name, v1=model_of(text, opset=17).SerializeToString())
    write_model(folder, "simple", v1=add_sub())
    with serve(folder) as served:
        yield served


def infer(served: Served, model: str, **arrays: Any) -> Any:
    inputs: list[Any] = []
    for name, array in arrays.items():
        tensor = tritonclient.http.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        inputs.append(tensor.set_data_from_numpy(array))
    with tritonclient.http.InferenceServerClient(served.http) as client:
        return client.infer(model, inputs).as_numpy("OUTPUT0" if model == "simple" else "y")


def serves_on(served: Served) -> bool:
    assert served.process.poll() is None
    ones = np.ones((1, 16), np.int32)
    assert infer(served, "simple", INPUT0=ones, INPUT1=ones).tolist() == [[2] * 16]
    with tritonclient.http.InferenceServerClient(served.http) as client:
        return client.is_server_ready() and all(client.is_model_ready(name) for name in MODELS)


def rows(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.ones((3, count, 2), np.float32)


def test_a_quotient_that_overflows_wraps(served: Served) -> None:
    found = infer(served, "quotient", x=np.array([LEAST, LEAST, 7]), d=np.array([-1, 1, -2]))
    assert found.tolist() == [LEAST, LEAST, -3]
    assert serves_on(served)


def test_a_size_of_0_is_refused(served: Served) -> None:
    right = infer(served, "recurrent", x=rows(2))
    with pytest.raises(InferenceServerException, match=r"'x' has the shape \[3, 0, 2\].*LSTM") as failure:
        infer(served, "recurrent", x=rows(0))
    assert failure.value.status() == "400"
    assert infer(served, "recurrent", x=rows(2)).tolist() == right.tolist()
    assert serves_on(served)


def test_a_size_that_becomes_0_ends_a_process_of_its_own(served: Served) -> None:
    right = infer(served, "sliced", x=rows(3))
    assert right.shape == (3, 1, 2, 1)
    for _ in range(2):
        with pytest.raises(InferenceServerException, match="SIGABRT while it computed this request"):
            infer(served, "sliced", x=rows(1))
        assert infer(served, "sliced", x=rows(3)).tolist() == right.tolist()
    assert serves_on(served)


def test_a_length_of_0_ends_a_process_of_its_own(served: Served) -> None:
    sound = np.ones((1, 16), np.float32)
    right = infer(served, "spectrum", x=sound, l=np.array([8]))
    with pytest.raises(InferenceServerException, match="SIGFPE while it computed this request"):
        infer(served, "spectrum", x=sound, l=np.array([0]))
    assert infer(served, "spectrum", x=sound, l=np.array([8])).tolist() == right.tolist()
    assert serves_on(served)


def test_a_model_that_ends_what_loads_it(tmp_path: Path) -> None:
    write_model(tmp_path, "fatal", v1=ending_itself(), v2=add_sub())
    write_model(tmp_path, "simple", v1=add_sub())
    with serve(tmp_path) as served, tritonclient.http.InferenceServerClient(served.http) as client:
        ones = np.ones((1, 16), np.int32)
        assert infer(served, "simple", INPUT0=ones, INPUT1=ones).tolist() == [[2] * 16]
        index = {(each["name"], each["version"]): each for each in client.get_model_repository_index()}
        assert index["simple", "1"]["state"] == "READY"
        # Of its versions, the newest is served unless its policy says otherwise.
        assert index["fatal", "2"]["state"] == "READY"
        (tmp_path / "fatal/config.pbtxt").write_text("version_policy { all {} }")
    with (
        serve(tmp_path, "--model-control-mode=explicit", "--load-model=simple") as served,
        tritonclient.http.InferenceServerClient(served.http) as client,
    ):
        with pytest.raises(InferenceServerException, match="version 1.*was killed by SIGFPE"):
            client.load_model("fatal")
        index = {(each["name"], each["version"]): each for each in client.get_model_repository_index()}
        assert index["fatal", "1"]["state"] == "UNAVAILABLE"
        assert "it would end the server" in index["fatal", "1"]["reason"]
        assert index["simple", "1"]["state"] == "READY"
