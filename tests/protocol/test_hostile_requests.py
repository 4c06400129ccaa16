"""Requests whose values or sizes would end ONNX Runtime's process, and models that do: the server serves on."""

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
    "inverse": "g (float[n,m] x) => (float[n,m] y) { y = com.microsoft.Inverse(x) }",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("repository")
    for name, text in MODELS.items():
        model = model_of(text, opset=17, imports=', "com.microsoft" : 1')
        write_model(folder, name, v1=model.SerializeToString())
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


@pytest.mark.parametrize(
    ("model", "sound", "fatal", "shape"),
    [
        ("recurrent", {"x": rows(2)}, {"x": rows(0)}, (3, 1, 2, 1)),
        ("sliced", {"x": rows(3)}, {"x": rows(1)}, (3, 1, 2, 1)),
        (
            "spectrum",
            {"x": np.ones((1, 16), np.float32), "l": np.array([8])},
            {"x": np.ones((1, 16), np.float32), "l": np.array([0])},
            (1, 3, 5, 2),
        ),
    ],
)
def test_what_is_0_is_refused(served: Served, model: str, sound: Any, fatal: Any, shape: tuple[int, ...]) -> None:
    right = infer(served, model, **sound)
    assert right.shape == shape
    with pytest.raises(InferenceServerException, match=r"takes no (size of )?0") as failure:
        infer(served, model, **fatal)
    assert failure.value.status() == "400"
    assert infer(served, model, **sound).tolist() == right.tolist()
    assert serves_on(served)


def test_what_cannot_be_checked_ends_a_process_of_its_own(served: Served) -> None:
    sound, wide = np.eye(2, dtype=np.float32), np.ones((2, 600), np.float32)
    assert infer(served, "inverse", x=sound).tolist() == sound.tolist()
    assert any("'inverse'" in line and "own process" in line for line in served.lines)
    for _ in range(2):
        with pytest.raises(InferenceServerException, match="SIG[A-Z]+ while it computed this request"):
            infer(served, "inverse", x=wide)
        assert infer(served, "inverse", x=sound).tolist() == sound.tolist()
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
        with pytest.raises(InferenceServerException, match="version 1.*was killed by SIGABRT"):
            client.load_model("fatal")
        index = {(each["name"], each["version"]): each for each in client.get_model_repository_index()}
        assert index["fatal", "1"]["state"] == "UNAVAILABLE"
        assert "it would end the server" in index["fatal", "1"]["reason"]
        assert index["simple", "1"]["state"] == "READY"
