"""Ensembles whose models wait, cancel, keep answers, come and go: L0_response_cache, L0_lifecycle and others."""

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from support.ensembles import chain, ensemble, write_ensemble
from support.process import Served, serve
from support.repositories import affine, write_model
from support.triton_lifecycle import EXPLICIT, TWO, clients, health, is_ready, put, until
from support.triton_qa import Asked, cases_of, held, metrics
from support.triton_tensors import tensors

cache = cases_of("L0_response_cache/ensemble_cache_test.py::")
lifecycle = cases_of("L0_lifecycle/lifecycle_test.py::")
HALF_A_SECOND = 250_000


@pytest.mark.parametrize(
    ("cached", "size", "hits", "misses"),
    [
        pytest.param(["e"], 1 << 20, {"e": 1}, {"e": 1}, marks=cache("test_ensemble_top_level_response_cache")),
        pytest.param(
            ["e", "m"], 1 << 20, {"e": 1}, {"e": 1, "m": 1}, marks=cache("test_ensemble_all_models_cache_enabled")
        ),
        pytest.param(["m"], 1 << 20, {"m": 1}, {"m": 1}, marks=cache("test_ensemble_composing_model_cache_enabled")),
        pytest.param(["e"], 1024, {}, {"e": 2}, marks=cache("test_ensemble_cache_insertion_failure")),
    ],
)
def test_kept_answers(
    tmp_path: Path, cached: list[str], size: int, hits: dict[str, int], misses: dict[str, int]
) -> None:
    def more(name: str) -> str:
        return "response_cache { enable: true }" if name in cached else ""

    wide = ensemble([("m", {"x": "x"}, {"y": "y"})], dims=256, more=more("e"))
    write_model(tmp_path, "m", f"max_batch_size: 4 {more('m')}", v1=affine(2, ("batch", 256)))
    write_ensemble(tmp_path, "e", wide)
    with serve(tmp_path, f"--cache-config=local,size={size}") as served, clients(served) as (http, _):
        for _ in range(2):
            x = np.ones((1, 256), np.float32)
            answer = http.infer("e", tensors(tritonclient.http, {"x": x})).as_numpy("y")
            np.testing.assert_array_equal(answer, 2 * x)
        for name in ("e", "m"):
            counted = http.get_inference_statistics(name)["model_stats"][0]["inference_stats"]
            assert (counted["cache_hit"]["count"], counted["cache_miss"]["count"]) == (
                hits.get(name, 0),
                misses.get(name, 0),
            )


@pytest.mark.triton("L0_request_cancellation/scheduler_test.py::test_ensemble_scheduler_request_cancellation")
def test_a_client_that_leaves_cancels_the_steps(tmp_path: Path) -> None:
    write_model(tmp_path, "held", "max_batch_size: 1", v1=held())
    own = {"inputs": ("INPUT0",), "outputs": ("OUTPUT0",), "dims": -1, "max_batch_size": 1}
    steps = [("held", {"INPUT0": "INPUT0"}, {"OUTPUT0": "out"}), ("held", {"INPUT0": "out"}, {"OUTPUT0": "OUTPUT0"})]
    write_ensemble(tmp_path, "e", ensemble(steps, **own))
    errors: list[Any] = []
    with serve(tmp_path) as served, tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        x = np.full((1, 16), 2 * HALF_A_SECOND, np.float32)
        given = tensors(tritonclient.grpc, {"INPUT0": x})
        asked = client.async_infer("e", given, lambda result, error: errors.append(error))
        until(lambda: 'nv_inference_request_success{model="held",version="1"} 0' in metrics(served))
        time.sleep(0.3)
        asked.cancel()
        until(lambda: len(errors) == 1)
        assert errors[0].status() == "StatusCode.CANCELLED"
        until(lambda: 'failure{model="e",reason="CANCELED",version="1"} 1' in metrics(served))
        until(lambda: 'failure{model="held",reason="CANCELED",version="1"} 1' in metrics(served))
        counted = client.get_inference_statistics("held").model_stats[0].inference_stats
        assert (counted.success.count, counted.fail.count) == (0, 1), "the second step was never begun"


@lifecycle("test_model_control_ensemble")
def test_what_comes_and_goes_with_it(tmp_path: Path) -> None:
    put(tmp_path, "onnx", 1, 3)
    write_ensemble(tmp_path, "simple_onnx", f"{chain('onnx')} {TWO.removeprefix('max_batch_size: 8')}", versions=(1, 3))
    with serve(tmp_path, EXPLICIT) as served, clients(served) as both:
        for client in both:
            is_ready(served, "onnx", {1: False, 3: False})
            is_ready(served, "simple_onnx", {1: False, 3: False})
            client.load_model("simple_onnx")
            is_ready(served, "onnx", {1: True, 3: True})
            is_ready(served, "simple_onnx", {1: True, 3: True})
            client.unload_model("simple_onnx", unload_dependents=True)
            until(lambda: not both[0].is_model_ready("onnx"))
            health(served, is_server_ready=True)
            is_ready(served, "onnx", {1: False, 3: False})
            client.load_model("simple_onnx")
            client.unload_model("simple_onnx")
            is_ready(served, "simple_onnx", {1: False, 3: False})
            is_ready(served, "onnx", {1: True, 3: True})
            client.unload_model("onnx")
            until(lambda: not both[0].is_model_ready("onnx"))


@lifecycle("test_shutdown_ensemble")
def test_a_server_that_ends_answers_what_is_under_way(tmp_path: Path) -> None:
    write_model(tmp_path, "held", "max_batch_size: 1", v1=held())
    own = {"inputs": ("INPUT0",), "outputs": ("OUTPUT0",), "dims": -1, "max_batch_size": 1}
    write_ensemble(tmp_path, "e", ensemble([("held", {"INPUT0": "INPUT0"}, {"OUTPUT0": "OUTPUT0"})], **own))
    with serve(tmp_path) as served:
        asked = Asked(served, "e")
        asked.send(1, value=4 * HALF_A_SECOND)
        asked.wait_past(500)
        served.process.send_signal(signal.SIGINT)
        asked.wait()
        assert asked.errors == {}
        asked.close()


@pytest.mark.triton("L0_simple_ensemble/ensemble_backpressure_test.py::test_step1_max_queue_size")
def test_a_step_whose_queue_is_full(tmp_path: Path) -> None:
    batching = "dynamic_batching { preferred_batch_size: [ 1 ] default_queue_policy { max_queue_size: 4 } }"
    write_model(tmp_path, "held", f"max_batch_size: 1 {batching}", v1=held())
    own = {"inputs": ("INPUT0",), "outputs": ("OUTPUT0",), "dims": -1, "max_batch_size": 1}
    write_ensemble(tmp_path, "e", ensemble([("held", {"INPUT0": "INPUT0"}, {"OUTPUT0": "OUTPUT0"})], **own))
    with serve(tmp_path) as served:
        asked = Asked(served, "e")
        numbers = [asked.send(1, value=HALF_A_SECOND) for _ in range(12)]
        asked.wait()
        assert 0 < len(asked.errors) < len(numbers)
        words = (
            "in ensemble 'e', Exceeds maximum queue size of model 'held', 4: send fewer requests at once, or try again "
        )
        assert set(asked.errors.values()) == {f"{words}later (step 0, model 'held')"}
        found = metrics(served)
        assert f'failure{{model="e",reason="OTHER",version="1"}} {len(asked.errors)}' in found
        assert f'failure{{model="held",reason="REJECTED",version="1"}} {len(asked.errors)}' in found
        asked.close()


@pytest.mark.triton("L0_metrics/metrics_queue_size_test.py::test_ensemble_scheduler")
def test_what_waits_waits_in_the_models(tmp_path: Path) -> None:
    delay = "dynamic_batching { max_queue_delay_microseconds: 100000 }"
    for name, more in (("dynamic_composing", delay), ("default_composing", "")):
        write_model(tmp_path, name, f"max_batch_size: 4 instance_group {{ count: 1 }} {more}", v1=held())
    steps = [
        ("dynamic_composing", {"INPUT0": "INPUT0"}, {"OUTPUT0": "OUTPUT0"}),
        ("default_composing", {"INPUT0": "INPUT0"}, {"OUTPUT0": "OUTPUT1"}),
    ]
    own = {"inputs": ("INPUT0",), "outputs": ("OUTPUT0", "OUTPUT1"), "dims": -1}
    write_ensemble(tmp_path, "ensemble", ensemble(steps, **own))

    def value(served: Served, name: str, model: str) -> float:
        line = f'nv_inference_{name}{{model="{model}",version="1"}} '
        return float(next(each for each in metrics(served).splitlines() if each.startswith(line)).rsplit(" ", 1)[1])

    with serve(tmp_path) as served:
        asked = Asked(served, "ensemble")
        for _ in range(10):
            asked.send(1, value=HALF_A_SECOND)
        models = ["dynamic_composing", "default_composing"]
        until(lambda: all(value(served, "pending_request_count", each) for each in models))
        assert value(served, "pending_request_count", "ensemble") == 0
        asked.wait()
        assert asked.errors == {}
        for name in ("ensemble", *models):
            assert (value(served, "pending_request_count", name), value(served, "count", name)) == (0, 10)
        asked.close()
