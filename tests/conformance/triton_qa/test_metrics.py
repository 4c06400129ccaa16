"""L0_metrics: which metrics there are, with which flags, and what they say."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import requests

from support.process import Served, serve
from support.repositories import write_model
from support.triton_qa import JSON, Asked, held, metrics, post, tensor, zero

CONFIG = "L0_metrics/metrics_config_test.py::"
QUEUE = "L0_metrics/metrics_queue_size_test.py::"
TURNS = 250_000
COUNTERS = [
    f"nv_inference_{each}_duration" for each in ("request", "queue", "compute_input", "compute_infer", "compute_output")
]
SUMMARIES = [each.replace("_duration", "_summary") for each in COUNTERS]
HISTOGRAM = "nv_inference_first_response_histogram_ms"
CACHE = [
    "nv_cache_num_hits_per_model",
    "nv_cache_num_misses_per_model",
    "nv_cache_hit_summary",
    "nv_cache_miss_summary",
]


def triton(*cases: str) -> pytest.MarkDecorator:
    return pytest.mark.triton(*cases)


def text_with(tmp_path: Path, *settings: str, config: str = "max_batch_size: 4") -> str:
    """The metrics of a server with these settings, after one inference."""
    write_model(tmp_path, "identity_cache_off", config, v1=zero())
    with serve(tmp_path, *(f"--metrics-config={each}" for each in settings)) as served:
        body = {"inputs": [tensor()]}
        assert post(served, "v2/models/identity_cache_off/infer", body, JSON).status_code == 200
        return metrics(served)


def check(text: str, there: Sequence[str], missing: Sequence[str]) -> None:
    assert [each for each in there if each not in text] == []
    assert [each for each in missing if each in text] == []


@triton(
    CONFIG + "test_inf_counters_exist", CONFIG + "test_inf_histograms_missing", CONFIG + "test_inf_summaries_missing",
    CONFIG + "test_cache_counters_missing", CONFIG + "test_cache_summaries_missing",
    CONFIG + "test_model_namespacing_label_with_namespace_off",
)  # fmt: skip
def test_what_there_is_by_default(tmp_path: Path) -> None:
    check(text_with(tmp_path), COUNTERS, [HISTOGRAM, *SUMMARIES, *CACHE, 'namespace="'])


@triton(CONFIG + "test_cache_counters_exist")
def test_counters_of_the_cache(tmp_path: Path) -> None:
    write_model(tmp_path, "identity_cache_on", "max_batch_size: 4 response_cache { enable: true }", v1=zero())
    with serve(tmp_path, "--cache-config=local,size=1048576") as served:
        for _ in range(2):
            assert post(served, "v2/models/identity_cache_on/infer", {"inputs": [tensor()]}, JSON).status_code == 200
        check(metrics(served), CACHE[:2], CACHE[2:])


@triton(CONFIG + "test_inf_histograms_exist")
def test_histograms(tmp_path: Path) -> None:
    parts = [HISTOGRAM + suffix for suffix in ("_count", "_sum", "_bucket")]
    check(text_with(tmp_path, "histogram_latencies=true"), [*COUNTERS, *parts], [*SUMMARIES, *CACHE])


@triton(CONFIG + "test_inf_summaries_exist", CONFIG + "test_inf_counters_missing")
def test_summaries_without_counters(tmp_path: Path) -> None:
    text = text_with(tmp_path, "summary_latencies=true", "counter_latencies=false")
    check(text, SUMMARIES, [*COUNTERS, *CACHE])


@triton(CONFIG + "test_summaries_custom_quantiles")
def test_quantiles(tmp_path: Path) -> None:
    text = text_with(tmp_path, "summary_latencies=true", "summary_quantiles=0.1:0.01,0.7:0.01,0.75:0.01")
    check(text, [f'quantile="{each}"' for each in ("0.1", "0.7", "0.75")], ['quantile="0.5"'])


@triton("L0_metrics/histogram_metrics_test.py::test_buckets_override")
def test_buckets_of_a_model(tmp_path: Path) -> None:
    config = (
        "max_batch_size: 4 model_metrics { metric_control: [ { metric_identifier: { family: "
        f'"{HISTOGRAM}" }} histogram_options: {{ buckets: [ -1, 0.0, 1, 2.5 ] }} }} ] }}'
    )
    text = text_with(tmp_path, "histogram_latencies=true", config=config)
    assert text.count(HISTOGRAM + "_bucket") == 5
    for le in ("-1", "0", "1", "2.5", "+Inf"):
        assert f'{HISTOGRAM}_bucket{{model="identity_cache_off",version="1",le="{le}"}}' in text


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("measured")
    delay = "max_queue_delay_microseconds: 100000"
    write_model(folder, "default", "max_batch_size: 4 dynamic_batching { } instance_group { count: 1 }", v1=held())
    # Without `dynamic_batching` in a config that names everything, requests run one by one.
    shape = "data_type: TYPE_FP32 dims: -1"
    alone = f'max_batch_size: 4 input {{ name: "INPUT0" {shape} }} output {{ name: "OUTPUT0" {shape} }}'
    write_model(folder, "default", f'backend: "onnxruntime" {alone}', v1=held())
    write_model(folder, "dynamic", f"max_batch_size: 4 dynamic_batching {{ {delay} }}", v1=held())
    queue = f"{delay} default_queue_policy {{ max_queue_size: 4 }}"
    write_model(folder, "max_queue_size", f"max_batch_size: 4 dynamic_batching {{ {queue} }}", v1=held())
    with serve(folder, "--metrics-interval-ms=100") as running:
        yield running


@pytest.fixture
def ask(served: Served) -> Iterator[Callable[[str], Asked]]:
    asked: list[Asked] = []

    def make(model: str) -> Asked:
        asked.append(Asked(served, model))
        return asked[-1]

    yield make
    for each in asked:
        each.close()


def value(served: Served, name: str, model: str) -> int:
    found = re.search(rf'^{name}{{model="{model}",version="1"}} (\d+)$', metrics(served), re.MULTILINE)
    assert found, "labels in Triton's order"
    return int(found[1])


@pytest.mark.parametrize(
    ("model", "rows", "num_refused"),
    [
        pytest.param("default", 1, 0, marks=triton(QUEUE + "test_default_scheduler")),
        pytest.param("dynamic", 4, 0, marks=triton(QUEUE + "test_dynamic_batch_scheduler")),
        pytest.param("max_queue_size", 4, 4, marks=triton(QUEUE + "test_fail_max_queue_size")),
    ],
)
def test_what_waits(served: Served, ask: Callable[[str], Asked], model: str, rows: int, num_refused: int) -> None:
    asked = ask(model)
    asked.until_waiting(served, 0)
    # A batch of its own keeps the model busy.
    asked.send(rows, value=4 * TURNS)
    asked.wait_past(300)
    for _ in range(8):
        asked.send(1, value=TURNS / 10)
    most = 8 - num_refused
    asked.until_waiting(served, most)
    seen = asked.until_waiting(served, 0)
    assert seen == sorted(seen, reverse=True)
    assert set(seen) <= set(range(0, most + 1, rows))
    asked.wait()
    assert len(asked.errors) == num_refused
    num_rows = rows + 8 - num_refused
    assert value(served, "nv_inference_count", model) == num_rows
    assert value(served, "nv_inference_exec_count", model) == num_rows // rows


def cpu(served: Served) -> tuple[float, int, int]:
    """Utilization, and the memory used and there."""
    text = metrics(served)
    found = [
        re.search(rf"^nv_cpu_{name} ([\d.e+]+)$", text, re.MULTILINE)
        for name in ("utilization", "memory_used_bytes", "memory_total_bytes")
    ]
    utilization, used, total = (float(each[1]) for each in found if each)
    return utilization, int(used), int(total)


@triton("L0_metrics/cpu_metrics_test.py::test_cpu_metrics_ranges")
def test_the_machine(served: Served) -> None:
    utilization, used, total = cpu(served)
    assert 0 <= utilization <= 1
    assert 0 <= used <= total
    assert total > 0


@triton("L0_metrics/cpu_metrics_test.py::test_cpu_metrics_during_inference")
def test_the_machine_while_it_works(served: Served) -> None:
    body = {"inputs": [tensor(shape=[1, 1], data=[float(TURNS)])]}
    seen = []
    with requests.Session() as session:
        for _ in range(8):
            answer = session.post(f"http://{served.http}/v2/models/dynamic/infer", json=body)
            assert answer.status_code == 200
            time.sleep(0.1)
            seen.append(cpu(served)[:2])
    # A busy machine is all busy all the time, so one of the two has to do.
    assert any(np.diff(values).any() for values in zip(*seen, strict=True)), "readings of the machine change"
