"""Ctrl-C: what is under way finishes, what is new is refused, and a second one ends it all."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import gevent
import numpy as np
import onnx
import pytest
import tritonclient.http
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from support.process import TRIUNE, Served, free_ports, serve
from support.repositories import WARM_UP, turning, write_model


@pytest.fixture(scope="module")
def slow_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that multiplies a matrix n times: as slow as it is asked to be."""
    folder = tmp_path_factory.mktemp("slow")
    body = helper.make_graph(
        [helper.make_node("MatMul", ["m", "w"], ["next"]), helper.make_node("Identity", ["go"], ["still"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m", TensorProto.FLOAT, [256, 256]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [256, 256]),
        ],
    )
    weight = helper.make_tensor("w", TensorProto.FLOAT, [256, 256], np.eye(256, dtype=np.float32).tobytes(), raw=True)
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["n"], ["count"]),
            helper.make_node("Loop", ["count", "", "w"], ["y"], body=body),
        ],
        "slow",
        [helper.make_tensor_value_info("n", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [256, 256])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    version = folder / "slow" / "1"
    version.mkdir(parents=True)
    onnx.save(model, version / "model.onnx")
    return folder


def ask(client: tritonclient.http.InferenceServerClient, count: int) -> object:
    tensor = tritonclient.http.InferInput("n", [1], "INT64")
    tensor.set_data_from_numpy(np.array([count]))
    return client.async_infer("slow", [tensor])


def until_under_way(served: Served) -> None:
    """Until a request waits, behind another that runs."""
    while metric(served.metrics, 'nv_inference_pending_request_count{model="slow",version="1"') < 1:
        # Triton's client sends only while its own scheduler runs.
        gevent.sleep(0.02)


def seconds_for(client: tritonclient.http.InferenceServerClient, count: int) -> float:
    begin = time.perf_counter()
    ask(client, count).get_result()  # type: ignore[attr-defined]
    return time.perf_counter() - begin


def test_first_interrupt_drains(slow_repository: Path) -> None:
    with serve(slow_repository) as served:
        client = tritonclient.http.InferenceServerClient(served.http, concurrency=2, network_timeout=60)
        late_client = tritonclient.http.InferenceServerClient(served.http)
        late_client.is_server_live()
        count = int(2000 * 3.0 / seconds_for(client, 2000))
        under_way, waiting = ask(client, count), ask(client, 1)
        until_under_way(served)
        served.interrupt()
        while late_client.is_server_ready():
            time.sleep(0.01)
        with pytest.raises(InferenceServerException, match="stopping"):
            ask(late_client, 1).get_result()  # type: ignore[attr-defined]
        assert not late_client.is_server_ready()
        for each in (under_way, waiting):
            assert each.get_result().as_numpy("y").shape == (256, 256)  # type: ignore[attr-defined]
        assert served.process.wait(60) == 0


def test_second_interrupt_stops_at_once(slow_repository: Path) -> None:
    with serve(slow_repository) as served:
        client = tritonclient.http.InferenceServerClient(served.http, concurrency=2, network_timeout=60)
        under_way = [ask(client, 2**62) for _ in range(2)]
        until_under_way(served)
        served.interrupt()
        time.sleep(0.3)
        assert served.process.poll() is None
        served.interrupt()
        # Had it waited for the request, it would have ended in order, with 0.
        assert served.process.wait(60) == 130
        with pytest.raises(Exception):  # noqa: B017 - the connection broke: which error says so is the client's
            under_way[0].get_result()  # type: ignore[attr-defined]


def test_what_never_ends_does_not_outlast_the_exit_timeout(slow_repository: Path) -> None:
    with serve(slow_repository, "--exit-timeout-secs=1") as served:
        client = tritonclient.http.InferenceServerClient(served.http, concurrency=2, network_timeout=60)
        endless = [ask(client, 2**62) for _ in range(2)]
        until_under_way(served)
        # Everything else is answered meanwhile.
        late_client = tritonclient.http.InferenceServerClient(served.http)
        assert late_client.is_server_ready()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 1
        assert any("not ended within 1 s" in line for line in served.lines)
        assert len(endless) == 2


@pytest.mark.parametrize("num_signals", [1, 2])
def test_whoever_stops_at_once_leaves_no_folders(
    slow_repository: Path, tmp_path: Path, num_signals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, temporary = tmp_path / "models", tmp_path / "temporary"
    shutil.copytree(slow_repository, repository)
    temporary.mkdir()
    (repository / "slow/config.pbtxt").write_text('parameters { key: "own_process" value { string_value: "1" } }')
    monkeypatch.setenv("TMPDIR", str(temporary))
    with serve(repository, f"--exit-timeout-secs={1 if num_signals == 1 else 60}") as served:
        client = tritonclient.http.InferenceServerClient(served.http, concurrency=2, network_timeout=60)
        endless = [ask(client, 2**62) for _ in range(2)]
        until_under_way(served)
        assert {each.name[:12] for each in temporary.iterdir()} == {"triune-held-"}
        for _ in range(num_signals):
            served.interrupt()
            time.sleep(0.1)
        assert served.process.wait(60) == (1 if num_signals == 1 else 130)
        assert len(endless) == 2
    assert not list(temporary.iterdir())


@pytest.fixture(scope="module")
def counting_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gives as many numbers as it is asked for."""
    folder = tmp_path_factory.mktemp("counting")
    graph = helper.make_graph(
        [helper.make_node("Squeeze", ["n"], ["end"]), helper.make_node("Range", ["zero", "end", "one"], ["y"])],
        "counting",
        [helper.make_tensor_value_info("n", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [None])],
        [helper.make_tensor("zero", TensorProto.INT64, [], [0]), helper.make_tensor("one", TensorProto.INT64, [], [1])],
    )
    version = folder / "counting" / "1"
    version.mkdir(parents=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), version / "model.onnx"
    )
    return folder


def encoding(served: Served, count: int) -> http.client.HTTPConnection:
    """A client that waits for the JSON of so many numbers, which the model has given."""
    connection = http.client.HTTPConnection(served.http, timeout=120)
    body = {"inputs": [{"name": "n", "datatype": "INT64", "shape": [1], "data": [count]}]}
    connection.request("POST", "/v2/models/counting/infer", json.dumps(body))
    done = 'nv_inference_request_success{model="counting",version="1"'
    while metric(served.metrics, done) < 1:
        time.sleep(0.01)
    return connection


def test_an_answer_that_is_encoded_is_finished_first(counting_repository: Path) -> None:
    with serve(counting_repository) as served:
        connection = encoding(served, 4_000_000)
        served.process.send_signal(signal.SIGTERM)
        answer = connection.getresponse()
        assert json.loads(answer.read())["outputs"][0]["data"][-1] == 3_999_999
        connection.close()
        assert served.process.wait(60) == 0


def test_encoding_does_not_outlast_the_exit_timeout(counting_repository: Path) -> None:
    with serve(counting_repository, "--exit-timeout-secs=1") as served:
        connection = encoding(served, 200_000_000)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 1
        assert any("not ended within 1 s; what was under way is lost" in line for line in served.lines)
        assert not any("had their answers" in line for line in served.lines)
        connection.close()


def test_a_load_that_never_ends_is_given_up(tmp_path: Path) -> None:
    write_model(tmp_path, "never", WARM_UP, v1=turning(2**62))
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    command = [TRIUNE, "serve", f"--repository={tmp_path}", *ports]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if " is LOADING" in line:
                process.send_signal(signal.SIGTERM)
                break
        lines += process.stderr
        assert process.wait(30) == 0
    assert any("'never' is UNAVAILABLE: failed to load 'never': the server is stopping" in line for line in lines)
    assert "Traceback" not in "".join(lines)


def test_what_polling_reads_or_loads_is_given_up(tmp_path: Path) -> None:
    with serve(tmp_path, "--model-control-mode=poll", "--repository-poll-secs=0.1") as served:
        write_model(tmp_path / "beside", "never", WARM_UP, v1=turning(2**62))
        # Four files of 4 GiB of zeros: they take no room, and long to read.
        (tmp_path / "beside" / "large" / "1").mkdir(parents=True)
        for name in ("model.onnx", "a", "b", "c"):
            with (tmp_path / "beside" / "large" / "1" / name).open("wb") as file:
                file.truncate(4 << 30)
        for name in ("never", "large"):
            (tmp_path / "beside" / name).rename(tmp_path / name)
        client = tritonclient.http.InferenceServerClient(served.http)
        deadline = time.monotonic() + 60
        loading: set[str] = set()
        while not {"never", "large"} <= loading:
            assert time.monotonic() < deadline
            loading = {each["name"] for each in client.get_model_repository_index() if each.get("state") == "LOADING"}
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 0


def test_sigterm_ends_an_idle_server(slow_repository: Path) -> None:
    with serve(slow_repository) as served:
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 0


def test_an_interrupt_while_models_load_begins_no_more_of_them(slow_repository: Path, tmp_path: Path) -> None:
    num_models = 40
    warm_up = (
        'model_warmup { name: "long" inputs { key: "n" value { data_type: TYPE_INT64 dims: 1 '
        'input_data_file: "count" } } }'
    )
    for number in range(num_models):
        folder = tmp_path / f"m{number}"
        shutil.copytree(slow_repository / "slow", folder)
        (folder / "config.pbtxt").write_text(warm_up)
        (folder / "warmup").mkdir()
        (folder / "warmup" / "count").write_bytes(np.int64(300).tobytes())
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    command = [TRIUNE, "serve", f"--repository={tmp_path}", *ports]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if " is READY " in line:
                process.send_signal(signal.SIGTERM)
                break
        lines += process.stderr
        assert process.wait(30) == 0
    assert any("stopping while models load" in line for line in lines)
    assert 1 <= sum(" is READY " in line for line in lines) < num_models
    assert "Traceback" not in "".join(lines)


def test_a_vanished_client_frees_its_place(slow_repository: Path) -> None:
    with serve(slow_repository) as served:
        host, port = served.http.split(":")
        client = tritonclient.http.InferenceServerClient(served.http, network_timeout=60)
        count = int(2000 * 1.0 / seconds_for(client, 2000))
        body = json.dumps({"inputs": [{"name": "n", "datatype": "INT64", "shape": [1], "data": [count]}]}).encode()
        for _ in range(5):
            with socket.create_connection((host, int(port))) as connection:
                head = f"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)
                time.sleep(0.05)
        ask(client, 1).get_result()  # type: ignore[attr-defined]
        # Four of the five never ran: the answer came after the one under way.
        failures = metric(served.metrics, 'nv_inference_request_failure{model="slow",reason="CANCELED",version="1"')
        assert failures >= 4


def metric(address: str, prefix: str) -> float:
    text = urllib.request.urlopen(f"http://{address}/metrics", timeout=60).read().decode()
    values = [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith("nv_")]
    assert values
    wanted = set(prefix.replace("{", ",").split(","))
    for line in text.splitlines():
        name, _, rest = line.partition("{")
        labels = set(rest.rpartition("}")[0].split(","))
        if wanted == {name} | labels:
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"no metric {prefix} in:\n{text}")


def test_a_taken_port_is_one_clear_line(slow_repository: Path) -> None:
    with serve(slow_repository) as served:
        port = served.http.split(":")[1]
        with pytest.raises(AssertionError) as failure, serve(slow_repository, f"--http-port={port}"):
            pass
    assert f"{port}" in str(failure.value)
    assert "Traceback" not in str(failure.value)


def test_live_but_not_served(slow_repository: Path) -> None:
    with serve(slow_repository) as served:
        with pytest.raises(urllib.error.HTTPError) as failure:
            urllib.request.urlopen(f"http://{served.http}/v2/models/nothing", timeout=60)
        assert failure.value.code == 404


def test_a_log_that_nobody_reads_holds_up_neither_loads_nor_the_end(tmp_path: Path) -> None:
    own = 'parameters { key: "own_process" value { string_value: "true" } }'
    write_model(tmp_path, "m", own, v1=turning(1))
    # The pipe is full before the server starts: not even its first line finds room.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 512)
    os.set_blocking(writing, True)
    http, grpc, metrics = free_ports(3)
    ports = (f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}")
    command = [TRIUNE, "serve", f"--repository={tmp_path}", *ports, "--model-control-mode=explicit", "--log-verbose=1"]
    server = subprocess.Popen(command, stdout=writing, stderr=writing)
    os.close(writing)
    try:
        client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{http}", network_timeout=60)
        deadline = time.monotonic() + 60
        while True:
            try:
                assert client.is_server_ready()
                break
            except (OSError, AssertionError):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        for _ in range(3):
            client.load_model("m")
            assert client.is_model_ready("m")
            for _ in range(100):
                with pytest.raises(InferenceServerException):
                    client.load_model("nothing")
            client.unload_model("m")
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()
        os.close(reading)
