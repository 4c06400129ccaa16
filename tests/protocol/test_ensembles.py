"""Ensembles through Triton's clients: an image that is prepared and classified, and a diamond."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from support.ensembles import chain, ensemble, write_ensemble
from support.process import Served, serve
from support.repositories import add_sub, affine, write_model
from support.triton_lifecycle import until
from support.triton_qa import FP32, MODULES
from support.triton_tensors import tensors

PAGE = Path(__file__).parents[2] / "docs" / "ensembles.md"
DIAMOND = (
    ("double", {"x": "x"}, {"y": "doubled"}),
    ("left", {"x": "doubled"}, {"y": "l"}),
    ("right", {"x": "doubled"}, {"y": "r"}),
    ("join", {"INPUT0": "l", "INPUT1": "r"}, {"OUTPUT0": "sum", "OUTPUT1": "difference"}),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("ensembles")
    for title, code in re.findall(r"^```python title=\"(.+?)\"\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        (folder / title).write_text(code)
        subprocess.run([sys.executable, title], cwd=folder, check=True)
    models = folder / "models"
    batch = "max_batch_size: 8 instance_group { count: 2 } dynamic_batching { }"
    for name, scale in (("double", 2), ("left", 3), ("right", 5)):
        write_model(models, name, batch, v1=affine(scale))
    write_model(models, "join", batch, v1=add_sub(FP32, ("batch", 4)))
    write_ensemble(models, "diamond", ensemble(DIAMOND, outputs=("sum", "difference"), max_batch_size=8))
    free = 'input { name: "x" data_type: TYPE_FP32 dims: -1 } output { name: "y" data_type: TYPE_FP32 dims: -1 }'
    write_model(models, "any_length", f"max_batch_size: 8 {free}", v1=affine(2, ("batch", "n")))
    write_ensemble(models, "too_long", chain("any_length", "double", dims=-1))
    with serve(models, "--model-control-mode=explicit", "--load-model=*", "--metrics-interval-ms=100") as running:
        yield running


def ask(served: Served, protocol: str, model: str, arrays: dict[str, np.ndarray], **options: Any) -> Any:
    module = MODULES[protocol]
    with module.InferenceServerClient(getattr(served, protocol)) as client:
        return client.infer(model, tensors(module, arrays), **options)


@pytest.mark.parametrize("protocol", MODULES)
def test_an_image_is_prepared_and_classified(served: Served, protocol: str) -> None:
    images = np.random.default_rng(7).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    images[0, ..., 2] = 255
    means = images.astype(np.float64).mean((1, 2)) / 255
    powers = np.exp(8 * means - 4 * means.sum(1, keepdims=True))
    result = ask(served, protocol, "colours", {"IMAGE": images}, request_id="seven")
    np.testing.assert_allclose(result.as_numpy("SCORES"), powers / powers.sum(1, keepdims=True), rtol=1e-4)
    response = result.get_response()
    assert (response["id"] if protocol == "http" else response.id) == "seven"
    wanted = [MODULES[protocol].InferRequestedOutput("SCORES", class_count=1)]
    first = ask(served, protocol, "colours", {"IMAGE": images}, outputs=wanted).as_numpy("SCORES")[0, 0]
    assert first.decode().endswith(":2:blue")


def test_what_the_server_says_of_it(served: Served) -> None:
    with (
        tritonclient.http.InferenceServerClient(served.http) as http,
        tritonclient.grpc.InferenceServerClient(served.grpc) as grpc,
    ):
        metadata = http.get_model_metadata("colours")
        assert (metadata["platform"], metadata["versions"]) == ("ensemble", ["1"])
        assert metadata["inputs"] == [{"name": "IMAGE", "datatype": "UINT8", "shape": [-1, 64, 64, 3]}]
        assert grpc.get_model_metadata("colours").outputs[0].shape == [-1, 3]
        assert http.get_model_config("colours")["ensemble_scheduling"]["step"][1]["input_map"] == {"pixels": "pixels"}
        assert {"name": "colours", "version": "1", "state": "READY"} in http.get_model_repository_index()

        def counted() -> dict[str, Any]:
            names = ("colours", "prepare", "classify")
            return {name: http.get_inference_statistics(name)["model_stats"][0] for name in names}

        before = counted()
        ask(served, "http", "colours", {"IMAGE": np.zeros((2, 64, 64, 3), np.uint8)})
        after = counted()
    for name, now in after.items():
        assert now["inference_count"] - before[name]["inference_count"] == 2
        assert now["execution_count"] - before[name]["execution_count"] == 1
        assert [each["batch_size"] for each in now["batch_stats"]].count(2) == 1

    def took(name: str, what: str) -> int:
        return after[name]["inference_stats"][what]["ns"] - before[name]["inference_stats"][what]["ns"]

    for what in ("compute_input", "compute_infer", "compute_output"):
        assert took("colours", what) == took("prepare", what) + took("classify", what)
    assert took("colours", "queue") == 0
    assert took("colours", "success") >= took("colours", "compute_infer")


def test_answers_stay_apart_while_a_model_is_replaced(served: Served) -> None:
    errors: list[str] = []
    num_asked = [0]
    is_over = threading.Event()

    def go_on(protocol: str, first: int) -> None:
        module = MODULES[protocol]
        with module.InferenceServerClient(getattr(served, protocol)) as client:
            value = first
            while not is_over.is_set():
                x = np.full((1 + value % 3, 4), value, np.float32)
                try:
                    result = client.infer("diamond", tensors(module, {"x": x}))
                    total, difference = result.as_numpy("sum"), result.as_numpy("difference")
                    scale = total[0, 0] / value
                    # `right` is 5, and 7 once it is replaced: one of them, and not both, in one answer.
                    if scale not in (16, 20) or not np.array_equal(total, x * scale):
                        errors.append(f"{value}: {total}")
                    if not np.array_equal(difference, x * (12 - scale)):
                        errors.append(f"{value}: {difference}")
                except InferenceServerException as error:
                    errors.append(str(error))
                num_asked[0] += 1
                value += 8

    threads = [threading.Thread(target=go_on, args=(("http", "grpc")[each % 2], each + 1)) for each in range(8)]
    for each in threads:
        each.start()
    with tritonclient.http.InferenceServerClient(served.http) as client:
        for scale in (7, 5, 7):
            write_model(served.repository, "right", v1=affine(scale))
            client.load_model("right")
            enough = num_asked[0] + 50
            until(lambda enough=enough: num_asked[0] >= enough or bool(errors))
    is_over.set()
    for each in threads:
        each.join()
    assert errors == []
    result = ask(served, "http", "diamond", {"x": np.ones((1, 4), np.float32)})
    assert result.as_numpy("sum")[0, 0] == 20


@pytest.mark.parametrize(("protocol", "status"), [("http", "400"), ("grpc", "StatusCode.INVALID_ARGUMENT")])
def test_an_error_names_the_step(served: Served, protocol: str, status: str) -> None:
    assert ask(served, protocol, "too_long", {"x": np.ones((1, 4), np.float32)}).as_numpy("y")[0, 0] == 4
    with pytest.raises(InferenceServerException) as raised:
        ask(served, protocol, "too_long", {"x": np.ones((1, 5), np.float32)})
    message = raised.value.message()
    assert message.startswith(
        "in ensemble 'too_long', unexpected shape for input 'x' for model 'double'. Expected [-1,4]"
    )
    assert message.endswith("(step 1, model 'double')")
    assert raised.value.status() == status


def test_what_is_missing_is_said_to_whoever_asks(served: Served) -> None:
    with tritonclient.http.InferenceServerClient(served.http) as client:
        client.unload_model("classify")
        assert not client.is_model_ready("colours")
        assert client.is_model_ready("prepare")
        for protocol, status in (("http", "503"), ("grpc", "StatusCode.UNAVAILABLE")):
            with pytest.raises(InferenceServerException, match="depends on 'classify' which has no loaded") as raised:
                ask(served, protocol, "colours", {"IMAGE": np.zeros((1, 64, 64, 3), np.uint8)})
            assert raised.value.status() == status
        client.load_model("classify")
        assert client.is_model_ready("colours")
