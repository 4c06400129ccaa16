import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient

from triune.frontends.access import OPEN, Api
from triune.frontends.anthropic.errors import answer_error as anthropic_error
from triune.frontends.openai.errors import answer_error as openai_error
from triune.frontends.routes import ApiRoute, otherwise


async def answer(request: Request) -> Response:
    return PlainTextResponse("answered")


ROUTES = [ApiRoute(Api.METADATA, "/v1/things/{thing}", answer), ApiRoute(None, "/v1/made", answer, ("POST",))]


@pytest.fixture(scope="module")
def client() -> TestClient:
    guarded = [each.guarded(OPEN) for each in (*ROUTES, otherwise("/v1/{rest:path}", ROUTES, openai_error))]
    return TestClient(Starlette(routes=guarded))


def test_routes_come_first(client: TestClient) -> None:
    assert client.get("/v1/things/one").text == "answered"
    assert client.post("/v1/made").text == "answered"


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v1/other", 404, None),
        ("POST", "/v1/things/one/two", 404, None),
        ("GET", "/v1/made", 405, "POST"),
        ("DELETE", "/v1/things/one", 405, "GET, HEAD"),
        ("HEAD", "/v1/other", 404, None),
    ],
)
def test_what_an_api_does_not_have(client: TestClient, method: str, path: str, status: int, allow: str | None) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.headers.get("Allow")) == (status, allow)
    if method != "HEAD":
        error = orjson.loads(response.content)["error"]
        assert f"{method} {path}" in error["message"]
        assert error["message"].endswith("the paths are /v1/things/{thing}, /v1/made" if status == 404 else f"{allow}")
        assert error["type"] == "invalid_request_error"


def test_each_api_has_its_own_form() -> None:
    guarded = otherwise("/v1/messages/{rest:path}", ROUTES, anthropic_error).guarded(OPEN)
    response = TestClient(Starlette(routes=[guarded])).get("/v1/messages/batches")
    assert response.status_code == 404
    assert response.json()["type"] == "error"
    assert response.json()["error"]["type"] == "not_found_error"
