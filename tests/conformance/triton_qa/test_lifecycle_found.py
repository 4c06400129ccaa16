"""L0_lifecycle: what a server finds at its start, and while it polls."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from support.process import serve
from support.triton_lifecycle import (
    POLL,
    TWO,
    answer,
    clients,
    health,
    is_ready,
    put,
    refused,
    until_ready,
)
from support.triton_qa import cases_of, states
from support.triton_tensors import tensors

triton = cases_of("L0_lifecycle/lifecycle_test.py::")


# At the start.


@triton("test_parse_error_noexit")
@pytest.mark.parametrize("others", [(), ("--model-repository={}", "--strict-readiness=false")])
def test_a_repository_that_is_not_there(tmp_path: Path, others: Sequence[str]) -> None:
    put(tmp_path / "models", "good", 1, 3)
    flags = [each.format(tmp_path / "models") for each in others]
    with serve(tmp_path / "nothing", "--exit-on-error=false", *flags) as served, clients(served) as both:
        for client in both:
            assert not client.is_server_live()
            assert not client.is_server_ready()
            assert client.get_server_metadata()
            with pytest.raises(InferenceServerException, match="nothing cannot be read: No such file"):
                client.get_model_repository_index()
        assert any("neither live nor ready, and serves no model: model repository" in each for each in served.lines)
        served.interrupt()
        assert served.process.wait(60) == 0


@pytest.mark.parametrize("flags", [(), ("--exit-on-error=true",)])
def test_a_repository_that_is_not_there_ends_the_start(tmp_path: Path, flags: Sequence[str]) -> None:
    with (
        pytest.raises(AssertionError, match="the server ended with 1:\n.*nothing' is not a folder"),
        serve(tmp_path / "nothing", *flags),
    ):
        pass


@pytest.mark.parametrize(
    "is_strict",
    [
        pytest.param(True, marks=triton("test_parse_error_modelfail", "test_init_error_modelfail")),
        pytest.param(False, marks=triton("test_parse_error_modelfail_nostrict")),
    ],
)
def test_models_that_do_not_load(tmp_path: Path, is_strict: bool) -> None:
    put(tmp_path, "good", 1, 3)
    put(tmp_path, "broken", 1, 3)
    (tmp_path / "broken" / "3" / "model.onnx").write_bytes(b"no model")
    put(tmp_path, "misnamed", 1, config='max_batch_size: 8 output { name: "_y" data_type: TYPE_FP32 dims: 4 }')
    with serve(tmp_path, "--exit-on-error=false", f"--strict-readiness={str(is_strict).lower()}") as served:
        health(served, is_server_ready=not is_strict)
        is_ready(served, "broken", {1: False, 3: False})
        is_ready(served, "misnamed", {1: False})
        for name in ("broken", "misnamed"):
            refused(served, name, f"Request for unknown model: '{name}' has no available versions")
        is_ready(served, "good", {1: True, 3: True})
        assert (answer(served, "good", 1), answer(served, "good", 3)) == (1.0, 3.0)


@triton("test_parse_error_no_model_config")
def test_a_model_without_a_config_where_one_must_be(tmp_path: Path) -> None:
    full = " ".join(f"{each} data_type: TYPE_FP32 dims: 4 }}" for each in ('input { name: "x"', 'output { name: "y"'))
    put(tmp_path, "good", 1, config=f'name: "good" backend: "onnxruntime" max_batch_size: 8 {full}')
    put(tmp_path, "bare", 1, config=None)
    flags = ("--strict-model-config=true", "--strict-readiness=false", "--exit-on-error=false")
    with serve(tmp_path, *flags) as served:
        health(served, is_server_ready=True)
        assert answer(served, "good") == 1.0
        refused(served, "bare", "Request for unknown model: 'bare' is not found")


@triton("test_parse_error_model_no_version")
def test_a_model_without_versions(tmp_path: Path) -> None:
    put(tmp_path, "good", 1, 3)
    put(tmp_path, "empty")
    with serve(tmp_path, "--exit-on-error=false") as served:
        health(served, is_server_ready=False)
        is_ready(served, "good", {1: True, 3: True})
        refused(served, "empty", "Request for unknown model: 'empty' has no available versions")


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param("003", marks=triton("test_parse_ignore_zero_prefixed_version")),
        pytest.param("abc", marks=triton("test_parse_ignore_non_intergral_version")),
    ],
)
def test_folders_that_are_no_versions(tmp_path: Path, folder: str) -> None:
    put(tmp_path, "model", 1, config="max_batch_size: 8 version_policy { all { } }")
    shutil.copytree(tmp_path / "model" / "1", tmp_path / "model" / folder)
    with serve(tmp_path) as served:
        health(served, is_server_ready=True)
        assert [each for each in states(served) if each.startswith("model")] == ["model/1"]
        assert answer(served, "model") == 1.0
        words = {"003": "contains leading zeros in its directory name", "abc": "fails to convert to integral number"}
        assert any(f"ignore version directory '{folder}' which {words[folder]}" in each for each in served.lines)


# Without control.


@triton("test_dynamic_model_load_unload_disabled", "test_dynamic_version_load_unload_disabled")
def test_changes_that_nobody_looks_for(tmp_path: Path) -> None:
    put(tmp_path, "old", 1, 3)
    with serve(tmp_path) as served:
        put(tmp_path, "new", 1)
        put(tmp_path, "old", 7)
        shutil.rmtree(tmp_path / "old" / "1")
        time.sleep(0.5)
        is_ready(served, "new", {1: False})
        refused(served, "new", "Request for unknown model: 'new' is not found")
        is_ready(served, "old", {1: True, 3: True, 7: False})
        assert answer(served, "old", 1) == 1.0


# Polling.


@triton("test_dynamic_model_load_unload")
def test_a_model_that_went_has_no_versions(tmp_path: Path) -> None:
    put(tmp_path, "model", 1)
    with serve(tmp_path, *POLL) as served:
        shutil.rmtree(tmp_path / "model")
        until_ready(served, "model", {1: False})
        refused(served, "model", "Request for unknown model: 'model' has no available versions")


@triton("test_dynamic_file_delete")
def test_what_polling_finds(tmp_path: Path) -> None:
    put(tmp_path, "first", 1, 3)
    with serve(tmp_path, *POLL) as served:
        is_ready(served, "new", {1: False, 3: False})
        put(tmp_path / "beside", "new", 1, 3)
        (tmp_path / "beside" / "new").rename(tmp_path / "new")
        until_ready(served, "new", {1: True, 3: True})
        assert answer(served, "new", 3) == 3.0
        with clients(served) as (http, _):
            statistics = http.get_inference_statistics("new")["model_stats"]
            counts = {each["version"]: each["inference_stats"]["success"]["count"] for each in statistics}
            assert counts == {"1": 0, "3": 1}
        # A version goes, and another comes.
        shutil.rmtree(tmp_path / "new" / "1")
        (tmp_path / "new" / "config.pbtxt").write_text("max_batch_size: 8 version_policy { all { } }")
        put(tmp_path, "new", 7, config=None)
        until_ready(served, "new", {1: False, 3: True, 7: True})
        # Without its config the newest is served alone.
        (tmp_path / "new" / "config.pbtxt").unlink()
        until_ready(served, "new", {3: False, 7: True})
        refused(served, "new", "Request for unknown model", 3)
        shutil.rmtree(tmp_path / "new")
        until_ready(served, "new", {7: False})
        refused(served, "new", "Request for unknown model: 'new'")
        is_ready(served, "first", {1: True, 3: True})
        # It comes again, and its statistics begin anew.
        put(tmp_path / "beside", "new", 1, 3)
        (tmp_path / "beside" / "new").rename(tmp_path / "new")
        until_ready(served, "new", {1: True, 3: True})
        with clients(served) as (http, _):
            statistics = http.get_inference_statistics("new")["model_stats"]
            assert [each["inference_stats"]["success"]["count"] for each in statistics] == [0, 0]


@triton("test_dynamic_version_load_unload")
def test_a_version_that_went_is_not_ready(tmp_path: Path) -> None:
    put(tmp_path, "model", 1, 3, config="max_batch_size: 8 version_policy { all { } }")
    with serve(tmp_path, *POLL) as served:
        shutil.rmtree(tmp_path / "model" / "1")
        until_ready(served, "model", {1: False, 3: True})
        refused(served, "model", "Request for unknown model: 'model' version 1 is not at ready state", 1)


@triton("test_dynamic_model_modify")
def test_another_label_file(tmp_path: Path) -> None:
    def config(file: str, policy: str) -> str:
        return (
            f'max_batch_size: 8 {policy} output {{ name: "y" data_type: TYPE_FP32 dims: 4 label_filename: "{file}" }}'
        )

    policy = "version_policy { specific { versions: [ 1, 3 ] } }"
    folder = put(tmp_path, "model", 1, 3, config=config("wrong", policy))
    for name in ("wrong", "right"):
        (folder / name).write_text("".join(f"{name}{index}\n" for index in range(4)))

    def label() -> bytes:
        outputs = [tritonclient.http.InferRequestedOutput("y", class_count=1)]
        inputs = tensors(tritonclient.http, {"x": np.ones((1, 4), np.float32)})
        with tritonclient.http.InferenceServerClient(served.http) as client:
            return client.infer("model", inputs, outputs=outputs).as_numpy("y")[0, 0]

    with serve(tmp_path, *POLL) as served:
        assert label() == b"3.000000:0:wrong0"
        (folder / "config.pbtxt").write_text(config("right", ""))
        until_ready(served, "model", {1: False, 3: True})
        assert label() == b"3.000000:0:right0"
        refused(served, "model", "Request for unknown model", 1)
        assert answer(served, "model", 3) == 3.0


@triton("test_multiple_model_repository_polling")
def test_a_model_in_two_repositories_while_polling(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    put(first, "model", 1)
    with serve(first, f"--model-repository={second}", *POLL) as served:
        assert answer(served, "model", 1) == 1.0
        put(tmp_path, "model", 1, 3)
        (tmp_path / "model").rename(second / "model")
        until_ready(served, "model", {1: False, 3: False})
        shutil.rmtree(first / "model")
        until_ready(served, "model", {1: True, 3: True})


@triton("test_add_custom_config", "test_delete_custom_config")
def test_a_config_of_another_name(tmp_path: Path) -> None:
    folder = put(tmp_path, "model", 1, 2, 3)
    with serve(tmp_path, *POLL, "--model-config-name=custom") as served:
        is_ready(served, "model", {1: True, 2: False, 3: True})
        (folder / "configs").mkdir()
        (folder / "configs" / "custom.pbtxt").write_text(TWO.replace("1, 3", "2"))
        until_ready(served, "model", {1: False, 2: True, 3: False})
        (folder / "configs" / "custom.pbtxt").unlink()
        until_ready(served, "model", {1: True, 2: False, 3: True})
