"""Models that are loaded and unloaded, for the suite based on Triton's L0_lifecycle: y = version * x, and models that
load slowly.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from support.process import Served
from support.repositories import affine, write_model
from support.triton_qa import held
from support.triton_tensors import tensors

TWO = "max_batch_size: 8 version_policy { specific { versions: [ 1, 3 ] } }"
EXPLICIT = "--model-control-mode=explicit"
POLL = ("--model-control-mode=poll", "--repository-poll-secs=0.2")
SLOW = (
    'max_batch_size: 8 model_warmup { name: "w" batch_size: 1 inputs { key: "INPUT0" value { data_type: TYPE_FP32 '
    'dims: 4 input_data_file: "turns" } } }'
)


def put(folder: Path, name: str, *versions: int, config: str | None = TWO) -> Path:
    return write_model(folder, name, config, **{f"v{each}": affine(float(each)) for each in versions})


def put_slow(folder: Path, name: str, *versions: int, config: str = SLOW, turns: int = 500_000) -> None:
    """Write models that take a second to load, because of their warm-up."""
    model = write_model(folder, name, config, **{f"v{each}": held() for each in versions})
    (model / "warmup").mkdir(exist_ok=True)
    (model / "warmup" / "turns").write_bytes(np.full(4, turns, np.float32).tobytes())


@contextlib.contextmanager
def clients(served: Served) -> Iterator[tuple[Any, Any]]:
    with (
        tritonclient.http.InferenceServerClient(served.http) as http,
        tritonclient.grpc.InferenceServerClient(served.grpc) as grpc,
    ):
        yield http, grpc


def is_ready(served: Served, name: str, expected: Mapping[int, bool]) -> None:
    """Assert that both clients see these versions as ready, or as not ready."""
    with clients(served) as both:
        for client in both:
            assert {each: client.is_model_ready(name, str(each)) for each in expected} == dict(expected)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def until_ready(served: Served, name: str, expected: Mapping[int, bool]) -> None:
    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        until(lambda: all(client.is_model_ready(name, str(each)) is there for each, there in expected.items()))
    is_ready(served, name, expected)


def answer(served: Served, name: str, version: int | str = "", protocol: str = "http") -> float:
    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[protocol]
    inputs = tensors(module, {"x": np.ones((1, 4), np.float32)})
    with module.InferenceServerClient(getattr(served, protocol)) as client:
        return float(client.infer(name, inputs, model_version=str(version)).as_numpy("y")[0, 0])


def refused(served: Served, name: str, words: str, version: int | str = "") -> None:
    for protocol in ("http", "grpc"):
        with pytest.raises(InferenceServerException, match=words):
            answer(served, name, version, protocol)


def health(served: Served, *, is_server_ready: bool) -> None:
    with clients(served) as both:
        for client in both:
            assert client.is_server_live()
            assert client.is_server_ready() is is_server_ready
