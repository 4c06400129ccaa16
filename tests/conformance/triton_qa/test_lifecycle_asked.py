"""L0_lifecycle: models that come and go by request, and how a server ends."""

import contextlib
import json
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from support.process import serve
from support.repositories import affine, write_model
from support.triton_lifecycle import (
    EXPLICIT,
    SLOW,
    TWO,
    answer,
    clients,
    health,
    is_ready,
    put,
    put_slow,
    until,
    until_ready,
)
from support.triton_qa import Asked, cases_of, held, states
from support.triton_tensors import tensors

triton = cases_of("L0_lifecycle/lifecycle_test.py::")


# By request.


@triton("test_model_control", "test_multiple_model_repository_control_startup_models")
def test_an_unload_of_what_is_not_there(tmp_path: Path) -> None:
    put(tmp_path, "model", 1, config="max_batch_size: 8")
    with serve(tmp_path, EXPLICIT) as served, clients(served) as both:
        for client in both:
            client.unload_model("unknown_model")


@triton("test_model_control_fail")
def test_models_come_and_go_by_request(tmp_path: Path) -> None:
    put(tmp_path, "started", 1, 3)
    folder = put(tmp_path, "model", 1, 3)
    put(tmp_path, "broken", 1, config="max_batch_size: 8")
    (tmp_path / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    with serve(tmp_path, EXPLICIT, "--load-model=started") as served, clients(served) as both:
        health(served, is_server_ready=True)
        is_ready(served, "started", {1: True, 3: True})
        is_ready(served, "model", {1: False, 3: False})
        for client in both:
            words = "failed to load 'unknown_model', failed to poll from model repository"
            with pytest.raises(InferenceServerException, match=words):
                client.load_model("unknown_model")
            for _ in range(2):
                with pytest.raises(InferenceServerException, match="load failed for model 'broken'"):
                    client.load_model("broken")
            client.load_model("model")
            is_ready(served, "model", {1: True, 3: True})
        (folder / "config.pbtxt").unlink()
        both[1].load_model("model")
        is_ready(served, "model", {1: False, 3: True})
        both[0].unload_model("model")
        until_ready(served, "model", {1: False, 3: False})


@triton("test_multiple_model_repository_control", "test_model_repository_index")
def test_a_model_in_two_repositories(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    put(first, "model", 1)
    put(second, "other", 1)
    with serve(first, f"--model-repository={second}", EXPLICIT) as served, clients(served) as (http, grpc):
        grpc.load_model("model")
        put(second, "model", 1, 3)
        with pytest.raises(InferenceServerException, match="failed to load 'model'"):
            http.load_model("model")
        is_ready(served, "model", {1: True, 3: False})
        shutil.rmtree(first / "model")
        http.unload_model("model")
        http.load_model("model")
        until_ready(served, "model", {1: True, 3: True})
        put(first, "model", 1)
        index = {each["name"]: each for each in http.get_model_repository_index()}
        assert set(index) == {"model", "other"}
    put(first, "model", 1)
    with (
        serve(first, f"--model-repository={second}", EXPLICIT, "--load-model=other") as served,
        clients(served) as both,
    ):
        for client in both:
            index = client.get_model_repository_index(**({"as_json": True} if client is both[1] else {}))
            index = index["models"] if client is both[1] else index
            (twice,) = [each for each in index if each["name"] == "model"]
            assert (twice["state"], twice["reason"]) == ("UNAVAILABLE", "model appears in two or more repositories")


@triton("test_load_same_model_different_platform")
def test_another_backend(tmp_path: Path) -> None:
    folder = put(tmp_path, "simple", 1, 3)
    with serve(tmp_path, EXPLICIT, "--load-model=simple") as served, clients(served) as (http, _):
        assert http.get_model_metadata("simple")["platform"] == "onnxruntime_onnx"
        (folder / "config.pbtxt").write_text(TWO + ' backend: "openvino"')
        http.load_model("simple")
        is_ready(served, "simple", {1: True, 3: True})
        assert http.get_model_metadata("simple")["platform"] == "openvino"


@triton(
    "test_model_availability_on_reload", "test_model_availability_on_reload_2", "test_model_availability_on_reload_3"
)  # fmt: skip
@pytest.mark.parametrize("kept", [(2,), (1, 2)])
def test_what_is_served_while_a_model_is_loaded_again(tmp_path: Path, kept: tuple[int, ...]) -> None:
    put_slow(tmp_path, "model", 1, turns=1000)
    with serve(tmp_path, EXPLICIT, "--load-model=model") as served, clients(served) as (_, grpc):
        policy = f" version_policy {{ specific {{ versions: [ {', '.join(map(str, kept))} ] }} }}"
        put_slow(tmp_path, "model", 2, config=SLOW + policy)
        with ThreadPoolExecutor() as pool:
            loading = pool.submit(grpc.load_model, "model")
            until(lambda: states(served).get("model/2") == "LOADING")
            is_ready(served, "model", {1: True, 2: False})
            health(served, is_server_ready=True)
            loading.result(60)
        until_ready(served, "model", {1: 1 in kept, 2: True})


@triton("test_model_reload_fail")
def test_a_reload_that_fails_leaves_what_is_served(tmp_path: Path) -> None:
    put(tmp_path, "model", 1, config="max_batch_size: 8")
    with serve(tmp_path, EXPLICIT, "--load-model=model") as served, clients(served) as (http, _):
        put(tmp_path, "model", 2, config="max_batch_size: 8 instance_group { kind: KIND_GPU }")
        with pytest.raises(InferenceServerException, match="load failed for model 'model': version 2"):
            http.load_model("model")
        is_ready(served, "model", {1: True, 2: False})
        assert answer(served, "model", 1) == 1.0


@triton("test_config_override", "test_model_config_overwite")
def test_a_config_in_a_request(tmp_path: Path) -> None:
    folder = put(tmp_path, "model", 2)
    with serve(tmp_path, EXPLICIT) as served, clients(served) as both:
        for client in both:
            with pytest.raises(InferenceServerException, match="failed to load 'model'|load failed for model 'model'"):
                client.load_model("model")
            config = {"max_batch_size": 8, "version_policy": {"specific": {"versions": [2]}}}
            client.load_model("model", config=json.dumps(config))
            is_ready(served, "model", {1: False, 2: True, 3: False})
            assert answer(served, "model") == 2.0
            # It is remembered, until the folder's config is touched.
            client.load_model("model")
            is_ready(served, "model", {2: True})
            (folder / "config.pbtxt").touch()
            with pytest.raises(InferenceServerException):
                client.load_model("model")
            is_ready(served, "model", {2: True})
            client.unload_model("model")
            until_ready(served, "model", {2: False})


@triton("test_file_override")
def test_files_in_a_request(tmp_path: Path) -> None:
    put(tmp_path, "model", 2, 3, config="max_batch_size: 8")
    config, files = json.dumps({"backend": "onnxruntime", "max_batch_size": 8}), {"file:1/model.onnx": affine(11.0)}
    with serve(tmp_path, EXPLICIT, "--load-model=model") as served, clients(served) as both:
        for client in both:
            is_ready(served, "model", {1: False, 2: False, 3: True})
            words = "failed to load 'model', failed to poll from model repository"
            with pytest.raises(InferenceServerException, match=words):
                client.load_model("model", files=files)
            is_ready(served, "model", {1: False, 2: False, 3: True})
            client.load_model("override", config=config, files=files)
            is_ready(served, "model", {1: False, 2: False, 3: True})
            is_ready(served, "override", {1: True, 2: False, 3: False})
            client.load_model("model", config=config, files=files)
            until_ready(served, "model", {1: True, 2: False, 3: False})
            assert (answer(served, "model"), answer(served, "override")) == (11.0, 11.0)
            for name in ("model", "override"):
                client.unload_model(name)
                until_ready(served, name, {1: False})
            client.load_model("model")


@triton("test_file_override_security")
def test_files_that_lead_elsewhere(tmp_path: Path) -> None:
    put(tmp_path / "models", "model", 1)
    target = tmp_path / "target"
    target.mkdir()
    (target / "kept").write_text("as it was")
    (tmp_path / "link").symlink_to(target)
    content = b"not to be"
    with serve(tmp_path / "models", EXPLICIT) as served, clients(served) as (http, _):
        for path in (f"../../..{target}/new/text", f"../../..{target}/kept", f"{tmp_path}/link/kept", "../link/new"):
            with pytest.raises(InferenceServerException, match="failed to load"):
                http.load_model("new", config='{"backend": "onnxruntime"}', files={f"file:{path}": content})
    assert [each.name for each in target.iterdir()] == ["kept"]
    assert (target / "kept").read_text() == "as it was"


@triton("test_concurrent_model_load_speedup")
def test_two_models_load_at_once(tmp_path: Path) -> None:
    put_slow(tmp_path, "one", 1)
    put_slow(tmp_path, "two", 1)
    with serve(tmp_path, EXPLICIT) as served, clients(served) as (_, grpc), ThreadPoolExecutor() as pool:
        loads = [pool.submit(grpc.load_model, name) for name in ("one", "two")]
        until(lambda: {states(served).get(f"{name}/1") for name in ("one", "two")} == {"LOADING"})
        for each in loads:
            each.result(60)
        is_ready(served, "one", {1: True})
        is_ready(served, "two", {1: True})


@triton("test_concurrent_model_load")
def test_one_model_loads_twice_at_once(tmp_path: Path) -> None:
    put_slow(tmp_path, "model", 1)
    with serve(tmp_path, EXPLICIT) as served, clients(served) as (_, grpc), ThreadPoolExecutor() as pool:
        first = pool.submit(grpc.load_model, "model")
        until(lambda: states(served).get("model/1") == "LOADING")
        put_slow(tmp_path, "model", 1, config=SLOW.replace("8", "4", 1))
        second = pool.submit(grpc.load_model, "model")
        first.result(60)
        second.result(60)
        assert grpc.get_model_config("model").config.max_batch_size == 4


@triton("test_concurrent_model_load_unload")
def test_an_unload_waits_for_the_load(tmp_path: Path) -> None:
    put_slow(tmp_path, "model", 1)
    with serve(tmp_path, EXPLICIT) as served, clients(served) as (_, grpc), ThreadPoolExecutor() as pool:
        loading = pool.submit(grpc.load_model, "model")
        until(lambda: states(served).get("model/1") == "LOADING")
        pool.submit(grpc.unload_model, "model").result(60)
        loading.result(60)
        assert not grpc.is_model_ready("model")


@triton("test_concurrent_same_model_load_unload_stress")
def test_loads_and_unloads_of_one_model(tmp_path: Path) -> None:
    put(tmp_path, "model", 1, config="max_batch_size: 8")
    with serve(tmp_path, EXPLICIT) as served, ThreadPoolExecutor(8) as pool:

        def work(number: int) -> None:
            with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
                for turn in range(10):
                    with contextlib.suppress(InferenceServerException):
                        (client.load_model if (number + turn) % 2 else client.unload_model)("model")

        list(pool.map(work, range(8)))
        with clients(served) as (http, _):
            http.load_model("model")
        assert answer(served, "model") == 1.0


@triton("test_load_new_model_version")
def test_only_what_changed_is_loaded_again(tmp_path: Path) -> None:
    def config(*numbers: int) -> str:
        return f"max_batch_size: 8 version_policy {{ specific {{ versions: {list(numbers)} }} }}"

    folder = put(tmp_path, "model", 1, 2, 3, config=config(1, 2))
    with serve(tmp_path, EXPLICIT, "--load-model=*") as served, clients(served) as (http, _):

        def counts() -> dict[str, int]:
            """Requests by version, which a version that is loaded again forgets."""
            return {
                each["version"]: each["inference_stats"]["success"]["count"]
                for each in http.get_inference_statistics("model")["model_stats"]
            }

        is_ready(served, "model", {1: True, 2: True, 3: False, 4: False})
        answer(served, "model", 1)
        answer(served, "model", 2)
        (folder / "2" / "model.onnx").write_bytes(affine(22.0))
        put(tmp_path, "model", 4, config=config(1, 2, 3, 4))
        http.load_model("model")
        is_ready(served, "model", {1: True, 2: True, 3: True, 4: True})
        assert counts() == {"1": 1, "2": 0, "3": 0, "4": 0}
        assert answer(served, "model", 2) == 22.0
        answer(served, "model", 4)
        (folder / "config.pbtxt").write_text(config(4))
        http.load_model("model")
        until_ready(served, "model", {1: False, 2: False, 3: False, 4: True})
        (folder / "config.pbtxt").write_text(config(1, 4))
        http.load_model("model")
        is_ready(served, "model", {1: True, 2: False, 3: False, 4: True})
        assert counts()["4"] == 1
        assert counts()["1"] == 0


# The end.


@triton("test_shutdown_dynamic")
def test_what_is_under_way_is_answered(tmp_path: Path) -> None:
    write_model(tmp_path, "held", "max_batch_size: 4 dynamic_batching { }", v1=held())
    with serve(tmp_path) as served:
        asked = Asked(served, "held")
        numbers = [asked.send(1, value=150_000) for _ in range(6)]
        asked.wait_past(300)
        served.interrupt()
        asked.wait_past(300)
        with tritonclient.grpc.InferenceServerClient(served.grpc) as client, pytest.raises(InferenceServerException):
            client.infer("held", tensors(tritonclient.grpc, {"INPUT0": np.zeros((1, 4), np.float32)}))
        asked.wait()
        assert (sorted(asked.order), asked.errors) == (numbers, {})
        assert served.process.wait(30) == 0


@triton("test_shutdown_while_loading")
def test_an_end_while_a_model_loads(tmp_path: Path) -> None:
    put_slow(tmp_path, "model", 1)
    with serve(tmp_path, EXPLICIT) as served, clients(served) as (_, grpc), ThreadPoolExecutor() as pool:
        loading = pool.submit(grpc.load_model, "model")
        until(lambda: states(served).get("model/1") == "LOADING")
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(40) == 0
        with contextlib.suppress(InferenceServerException):
            loading.result(60)
