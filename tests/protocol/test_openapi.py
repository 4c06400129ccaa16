"""docs/openapi.yaml, and a server that is held to it by schemathesis: generated requests, right ones and wrong ones."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, settings
from schemathesis.checks import CheckFunction, load_all_checks
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig
from schemathesis.generation.feedback import FeedbackSources
from schemathesis.pytest._test_builder import build_operation_test
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Route

from support.examples import examples
from support.process import Served, serve
from triune.app import make_repository, routes_beside
from triune.core.power import Power
from triune.frontends.kserve.http.app import make_app
from triune.frontends.playground.machine import PageMachine
from triune.repository.settings import RepositorySettings
from triune.serving.server import Server

DESCRIPTION = Path(__file__).parents[2] / "docs" / "openapi.yaml"
CHECKS: list[CheckFunction] = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
NUM_EXAMPLES = examples(20, least=5).max_examples
MAX_REQUEST_BYTES = 65536


def load_schema() -> Any:
    """The description, with models that the server has, and one that it does not, in place of any name."""
    document = yaml.safe_load(DESCRIPTION.read_text())
    names = ["simple", "simple_string", "simple_identity", "identity_fp32", "nothing"]
    document["components"]["parameters"]["model"]["schema"] = {"enum": names}
    document["components"]["parameters"]["version"]["schema"] = {"enum": [1, 2]}
    project = ProjectConfig(generation=GenerationConfig(deterministic=True, max_examples=NUM_EXAMPLES))
    config = schemathesis.Config(seed=20, projects=ProjectsConfig(default=project))
    return schemathesis.openapi.from_dict(document, config=config)


schema = load_schema()
OPERATIONS = {operation.label: operation for operation in (each.ok() for each in schema.get_all_operations())}
load_all_checks()


@pytest.fixture(scope="module")
def own(repository: Path) -> Iterator[Served]:
    """A server that nobody else uses: the requests load and unload its models."""
    limit = f"--max-request-bytes={MAX_REQUEST_BYTES}"
    with serve(repository, "--model-control-mode=explicit", "--load-model=*", limit) as served:
        yield served


def call(case: Any, own: Served) -> Any:
    """Send a request, and hold the answer to the description. A defect is never the right answer."""
    port = own.metrics if case.path == "/metrics" else own.http
    response = case.call_and_validate(base_url=f"http://{port}", checks=CHECKS, timeout=60)
    assert response.status_code != 500, response.text
    return response


@dataclass(frozen=True)
class Known:
    """A request whose answer is known."""

    path: str
    body: Any
    status: int
    expected: str
    model: str = "simple"
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict[str, str])
    content_type: str = "application/json"


def simple(shape: list[int], **fields: Any) -> dict[str, Any]:
    """A request to add and subtract 0 to 15 and ones."""
    data = {"INPUT0": list(range(16)), "INPUT1": [1] * 16}
    return {"inputs": [{"name": n, "datatype": "INT32", "shape": shape, "data": d} for n, d in data.items()], **fields}


INFER = "/v2/models/{model}/infer"
GENERATE = "/v2/models/{model}/generate"
LOAD = "/v2/repository/models/{model}/load"
UNLOAD = "/v2/repository/models/{model}/unload"
BINARY = "application/octet-stream"
NO_JSON = {"Inference-Header-Content-Length": "0"}
NUMBERS = np.arange(16, dtype="<f4").tobytes()
WORD = {"inputs": [{"name": "INPUT0", "datatype": "BYTES", "shape": [1, 1], "data": ["word"]}]}
REGION = {"inputs": [{"name": "INPUT0", "parameters": {"shared_memory_region": "r"}, "datatype": "FP32", "shape": [1]}]}
BEST = [{"name": "OUTPUT0", "parameters": {"classification": 1}}]
TOO_LONG = "x" * MAX_REQUEST_BYTES
KNOWN = [
    Known(INFER, simple([1, 16], id="seven"), 200, '"id":"seven"'),
    Known(INFER, simple([1, 16], outputs=BEST), 200, '"16:15"'),
    Known(INFER, simple([1, 16], parameters={"binary_data_output": True}), 200, "data_size", content_type=BINARY),
    Known(INFER, WORD, 200, '["word"]', "simple_identity"),
    Known(INFER, NUMBERS, 200, "data_size", "identity_fp32", BINARY, NO_JSON, BINARY),
    Known(INFER, simple([1, 15]), 400, "has 15 elements, but 'data' holds 16"),
    Known(INFER, simple([1, 16], id=TOO_LONG), 413, str(MAX_REQUEST_BYTES)),
    Known(INFER, REGION, 501, "shared memory"),
    Known(GENERATE, {"INPUT0": "word"}, 200, '"OUTPUT0":"word"', "simple_identity"),
    Known(GENERATE, {"INPUT0": TOO_LONG}, 413, str(MAX_REQUEST_BYTES), "simple_identity"),
    Known(
        f"{GENERATE}_stream", {"INPUT0": "a"}, 200, '"OUTPUT0":"a"', "simple_identity", content_type="text/event-stream"
    ),
    Known(LOAD, {"parameters": {"config": '{"max_batch_size": 3}'}}, 200, "", content_type=""),
    Known(LOAD, {"parameters": {"file:1/model.onnx": "?"}}, 400, "not valid base64"),
    Known(UNLOAD, {}, 200, "", "simple_string", content_type=""),
    Known(INFER, simple([1, 16]), 503, "simple_string", "simple_string"),
    Known("/v2/repository/index", {"ready": True}, 200, '"READY"'),
]


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: f"{known.path}: {known.status} {known.expected[:20]}")
def test_a_known_answer_is_as_described(known: Known, own: Served) -> None:
    case = schema[known.path]["POST"].Case(
        path_parameters={"model": known.model} if "{model}" in known.path else {},
        body=known.body,
        media_type=known.media_type,
        headers=known.headers,
    )
    response = call(case, own)
    assert response.status_code == known.status, response.text
    assert known.expected.encode() in response.content
    assert response.headers.get("content-type", [""])[0].split(";")[0] == known.content_type


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_as_described(label: str, own: Served) -> None:
    """What `schema.parametrize()` does, which would make all requests in each process that collects tests."""

    @settings(
        max_examples=NUM_EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def holds(case: Any) -> None:
        call(case, own)

    build_operation_test(
        config=schema.config,
        operation=OPERATIONS[label],
        test_func=holds,
        given_kwargs={},
        feedback=FeedbackSources(),
    )()


# Starlette's routes for what an API does not have: 404 and 405 need no description of their own.
OTHERWISE = {"/v1", "/v1/{rest}", "/v1/messages/{rest}"}


def test_every_route_is_described_and_nothing_else(repository: Path) -> None:
    """What is not offered has routes with a wildcard: of each, some path is described."""
    server = Server(make_repository(RepositorySettings([repository])))
    nothing: Any = None
    more = routes_beside(server, nothing, nothing, PageMachine((), Power()))
    app = make_app(server, nothing, nothing, more_routes=more)
    described = {
        (path, method.upper())
        for path, item in schema.raw_schema["paths"].items()
        for method in item
        if method in ("get", "post") and path != "/metrics"
    }
    served = {
        (re.sub(r":\w+}", "}", route.path), method)
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or ())
        if method in ("GET", "POST")
    }
    served = {(path, method) for path, method in served if path not in OTHERWISE}
    # The rest are answered for one path with another method.
    served.discard(("/v1/messages", "GET"))
    wild = {path.removesuffix("{rest}") for path, _ in served if path.endswith("{rest}")}
    of_wild = {(path, method): prefix for path, method in described for prefix in wild if path.startswith(prefix)}
    assert set(of_wild.values()) == wild
    assert described - of_wild.keys() == {each for each in served if not each[0].endswith("{rest}")}
