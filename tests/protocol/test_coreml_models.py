"""Core ML's functions, states and conversions behind a real server, through Triton's clients."""

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from support.mil_models import save_cached_attention, save_functions
from support.process import Served, serve
from support.repositories import add_sub, write_model
from support.transformers import VOCABULARY, gpt2
from support.triton_tensors import tensors

SLOTS, WIDTH = 8, 4


def parameters(**given: str) -> str:
    texts = ((name.replace("__", "."), value) for name, value in given.items())
    return "\n".join(f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}' for name, value in texts)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`twice` and `thrice`, functions of one package; `attention`, a step of a decoder; `slow`, not yet loaded."""
    folder, parts = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("parts")
    functions, attention = save_functions(parts), save_cached_attention(parts, SLOTS, WIDTH)
    for name, package, config in (
        ("twice", functions, parameters(units="ane")),
        ("thrice", functions, parameters(units="ane,cpu", coreml__function="thrice")),
        ("fourfold", functions, parameters(coreml__function="fourfold")),
        ("attention", attention, parameters(units="ane,cpu", coreml__states="explicit")),
        ("stateful", attention, ""),
    ):
        write_model(folder, name, config)
        shutil.copytree(package, folder / name / "1" / "model.mlpackage")
    write_model(folder, "simple", v1=add_sub())
    config = parameters(units="ane", coreml__shapes="tokens=1..4,1..32")
    write_model(folder, "slow", config, v1=gpt2().SerializeToString())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        wanted = ("twice", "thrice", "fourfold", "attention", "stateful", "simple")
        arguments = ["--model-control-mode=explicit", *(f"--load-model={name}" for name in wanted)]
        with serve(folder, *arguments) as served:
            yield served


def test_each_function_is_a_model(client: tuple[Any, Any]) -> None:
    module, asked = client
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for model, factor in (("twice", 2), ("thrice", 3)):
        answer = asked.infer(model, tensors(module, {"x": x})).as_numpy("y")
        np.testing.assert_array_equal(answer, factor * x + 1)


def test_what_cannot_be_served_says_why(served: Served) -> None:
    with tritonclient.http.InferenceServerClient(served.http) as client:
        reasons = {each["name"]: each.get("reason", "") for each in client.get_model_repository_index()}
        assert "no function 'fourfold': parameter 'coreml.function' may name 'twice', 'thrice'" in reasons["fourfold"]
        assert "keeps the states 'keys' between calls" in reasons["stateful"]
        with pytest.raises(InferenceServerException, match="'coreml.states' to 'explicit'"):
            client.load_model("stateful")


def test_states_travel_with_the_requests(client: tuple[Any, Any]) -> None:
    """A decoder's steps, each given the keys that the one before gave back: as one attention over all of them."""
    module, asked = client
    rows = np.random.default_rng(0).standard_normal((SLOTS, WIDTH)).astype(np.float16)
    state: dict[str, np.ndarray] = {}
    for step in range(SLOTS):
        mask = np.where(np.arange(SLOTS) <= step, 0, -30_000).astype(np.float16).reshape(1, 1, SLOTS)
        slot = (np.arange(SLOTS) == step).astype(np.float16).reshape(1, SLOTS, 1)
        found = asked.infer(
            "attention", tensors(module, {"x": rows[step : step + 1], "slot": slot, "mask": mask, **state})
        )
        keys = rows[: step + 1].astype(np.float32)
        weights = np.exp(keys @ keys[-1])
        np.testing.assert_allclose(found.as_numpy("y")[0], weights @ keys / weights.sum(), rtol=0.02, atol=0.01)
        state = {"keys": found.as_numpy("keys/new")}
        np.testing.assert_array_equal(state["keys"][0, : step + 1], rows[: step + 1])
        assert not state["keys"][0, step + 1 :].any()


def test_states_are_in_the_metadata_and_checked(served: Served) -> None:
    with tritonclient.http.InferenceServerClient(served.http) as client:
        metadata = client.get_model_metadata("attention")
        assert {"name": "keys", "datatype": "FP16", "shape": [1, SLOTS, WIDTH]} in metadata["inputs"]
        assert [each["name"] for each in metadata["outputs"]] == ["y", "keys/new"]
        optional = {each["name"]: each["optional"] for each in client.get_model_config("attention")["input"]}
        assert optional == {"x": False, "slot": False, "mask": False, "keys": True}
        wrong = {
            "x": np.zeros((1, WIDTH), np.float16),
            "slot": np.zeros((1, SLOTS, 1), np.float16),
            "mask": np.zeros((1, 1, SLOTS), np.float16),
            "keys": np.zeros((1, SLOTS, WIDTH + 1), np.float16),
        }
        with pytest.raises(InferenceServerException, match=r"'keys' for model 'attention'. Expected .*, got \[1,8,5\]"):
            client.infer("attention", tensors(tritonclient.http, wrong))


def converting(served: Served) -> list[psutil.Process]:
    found = []
    for each in psutil.Process(served.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "the conversion of" in " ".join(each.cmdline()):
                found.append(each)
    return found


def wait_for_conversion(served: Served) -> psutil.Process:
    deadline = time.monotonic() + 60
    while not (found := converting(served)):
        assert time.monotonic() < deadline, "no conversion began"
        time.sleep(0.01)
    return found[0]


class Loading:
    """`slow`, loaded in a thread."""

    def __init__(self, served: Served) -> None:
        self.error: Exception | None = None
        self._address = served.http
        self._thread = threading.Thread(target=self._load)

    def __enter__(self) -> "Loading":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def _load(self) -> None:
        try:
            with tritonclient.http.InferenceServerClient(self._address, network_timeout=120) as client:
                client.load_model("slow")
        except InferenceServerException as error:
            self.error = error


def test_others_are_served_while_a_model_is_converted(served: Served) -> None:
    arrays = {name: np.ones((1, 16), np.int32) for name in ("INPUT0", "INPUT1")}
    with tritonclient.http.InferenceServerClient(served.http) as client:
        # Killed, a conversion is an error that says so; the next load begins anew.
        with Loading(served) as loading:
            wait_for_conversion(served).kill()
        assert "the conversion of" in str(loading.error)
        assert "was killed by SIGKILL before that was done" in str(loading.error)
        with Loading(served) as loading:
            process = wait_for_conversion(served)
            # It stands still while others are asked.
            process.suspend()
            for _ in range(20):
                assert client.infer("simple", tensors(tritonclient.http, arrays)).as_numpy("OUTPUT0")[0, 0] == 2
            assert process.is_running()
            assert not loading.is_over
            process.resume()
        assert loading.error is None
        tokens = np.arange(8).reshape(2, 4) % VOCABULARY
        assert client.infer("slow", tensors(tritonclient.http, {"tokens": tokens})).as_numpy("logits").shape[:2] == (
            2,
            4,
        )
    assert converting(served) == []
    assert not any("Traceback" in line for line in served.lines)
