"""What pages of other sites can do with a server on a loopback address."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http

from support.process import Served, serve
from support.repositories import affine, write_model
from support.triton_tensors import tensors

FOREIGN = [{"Host": "evil.com:8000"}, {"Origin": "https://evil.com"}]
POSTS = ["/v2/models/affine/infer", "/v2/models/affine/generate", "/v2/repository/index", "/v1/chat/completions"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    write_model(made, "affine", v1=affine())
    return made


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serve(folder) as made:
        yield made


def status(address: str, headers: dict[str, str], body: bytes | None = b"{}") -> tuple[int, str]:
    """The status and the text of the answer to a POST, or without a body to a GET."""
    request = urllib.request.Request(f"http://{address}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_page_of_another_site_calls_nothing(served: Served, headers: dict[str, str]) -> None:
    for path in POSTS:
        found, text = status(served.http + path, headers)
        assert (found, "evil.com" in json.loads(text)["error"]) == (403, True)
    # A page reads nothing of another site: only its own name needs to be refused.
    expected = 403 if "Host" in headers else 200
    assert status(f"{served.http}/v2", headers, None)[0] == expected
    assert status(f"{served.metrics}/metrics", headers, None)[0] == expected


def test_clients_of_the_machine_call_everything(served: Served) -> None:
    port = served.http.rpartition(":")[2]
    for name in (served.http, f"localhost:{port}", f"host.docker.internal:{port}"):
        for path in POSTS:
            assert status(served.http + path, {"Host": name, "Origin": f"http://{name}"})[0] != 403
    with tritonclient.http.InferenceServerClient(f"localhost:{port}") as client:
        answer = client.infer("affine", tensors(tritonclient.http, {"x": np.ones((1, 4), np.float32)}))
    assert answer.get_response()["model_name"] == "affine"


@pytest.mark.parametrize(("flag", "expected"), [("--allowed-host=evil.com", 400), ("--api-key=rose-7Q", 401)])
def test_a_server_that_was_given_the_name_or_a_key_takes_it(folder: Path, flag: str, expected: int) -> None:
    with serve(folder, flag) as made:
        for headers in FOREIGN:
            assert status(made.http + POSTS[0], headers)[0] == expected
