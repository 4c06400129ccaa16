"""Streams of text on real sockets: clients that leave, that read slowly or not at all, and that have no key."""

import asyncio
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from support.table_text_model import TableTextModel, TableTextModels
from support.text_server import TextServer, serve_text
from triune.frontends.access import Access
from triune.frontends.limits import Limits

LONG = "word " * 8_000_000
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "long"}]},
    "/v1/completions": {"prompt": ["long", "long"], "max_tokens": 10**9},
    "/v1/responses": {"input": "long"},
    "/v1/messages": {"messages": [{"role": "user", "content": "long"}], "max_tokens": 10**9},
}


def tables() -> TableTextModels:
    return TableTextModels({"table": TableTextModel({"long": LONG}, context_tokens=10**9, tokens_per_delta=5000)})


@pytest.fixture(scope="module")
def served() -> Iterator[TextServer]:
    with serve_text(tables, limits=Limits(send_seconds=1.0)) as running:
        yield running


def table(served: TextServer) -> TableTextModel:
    return served.models.models["table"]


def connect(served: TextServer, path: str, *, is_stream: bool = True) -> socket.socket:
    body = json.dumps({"model": "table", "stream": is_stream, **BODIES[path]}).encode()
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=60)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)
    )
    return connection


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def set_gate(model: TableTextModel, *, is_open: bool) -> None:
    (model.gate.set if is_open else model.gate.clear)()


@pytest.mark.parametrize("path", BODIES)
def test_a_client_that_leaves_amid_a_stream_ends_the_generation(served: TextServer, path: str) -> None:
    model = table(served)
    served.run(set_gate(model, is_open=False))
    connection = connect(served, path)
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    assert model.num_open
    connection.close()
    # The model waits, so that only the end of the connection can end the generation.
    served.run(model.all_closed.wait())
    assert model.num_open == 0
    served.run(until(lambda: served.budget.reserved_bytes == 0))
    served.run(set_gate(model, is_open=True))


@pytest.mark.parametrize("path", BODIES)
def test_a_client_that_leaves_before_the_answer_ends_the_generation(served: TextServer, path: str) -> None:
    model = table(served)
    served.run(set_gate(model, is_open=False))
    connection = connect(served, path, is_stream=False)
    served.run(until(lambda: model.num_open))
    connection.close()
    served.run(model.all_closed.wait())
    served.run(until(lambda: served.budget.reserved_bytes == 0))
    served.run(set_gate(model, is_open=True))


@pytest.mark.parametrize("path", BODIES)
def test_a_client_that_does_not_read_holds_the_model_back_and_is_closed(served: TextServer, path: str) -> None:
    model = table(served)
    before = model.num_written
    with connect(served, path):
        served.run(until(lambda: model.num_open))
        # The send timeout is a second: the connection is closed, and with it the generation, of which most is unread.
        served.run(model.all_closed.wait())
    assert model.num_written - before < len(LONG) / 2
    served.run(until(lambda: served.budget.reserved_bytes == 0))


def test_the_memory_of_an_answer_is_limited(served: TextServer) -> None:
    body = {"messages": BODIES["/v1/chat/completions"]["messages"], "model": "table", "n": 128}
    with openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="x", max_retries=0) as client:
        # 64 MiB are the limit of all requests of this server together.
        with pytest.raises(openai.APIStatusError) as caught:
            client.post("/chat/completions", body=body, cast_to=object)
        assert caught.value.status_code == 413
        assert "67108864" in caught.value.message
    assert served.budget.reserved_bytes == 0
    assert table(served).num_open == 0


def test_keys() -> None:
    with serve_text(tables, rules=Access.of(keys=["rose-7Q"]).http) as served:
        url = f"http://127.0.0.1:{served.port}"
        with openai.OpenAI(base_url=f"{url}/v1", api_key="rose-7Q") as right:
            assert right.models.retrieve("table").id == "table"
        with openai.OpenAI(base_url=f"{url}/v1", api_key="tulip-9") as wrong:
            for call in (wrong.models.list, lambda: wrong.completions.create(model="table", prompt="x")):
                with pytest.raises(openai.AuthenticationError) as caught:
                    call()
                assert caught.value.code == "invalid_api_key"
        asked: Any = {"model": "table", "max_tokens": 3, "messages": [{"role": "user", "content": "x"}]}
        with anthropic.Anthropic(base_url=url, api_key="rose-7Q") as header:
            assert header.messages.create(**asked).role == "assistant"
        with anthropic.Anthropic(base_url=url, auth_token="rose-7Q") as bearer:
            assert bearer.messages.create(**asked).role == "assistant"
        with (
            anthropic.Anthropic(base_url=url, api_key="tulip-9") as other,
            pytest.raises(anthropic.AuthenticationError, match="authentication_error"),
        ):
            other.messages.create(**asked)
        both = urllib.request.Request(
            f"{url}/v1/messages",
            data=json.dumps(asked).encode(),
            headers={"Authorization": "Bearer rose-7Q", "x-api-key": "tulip-9"},
        )
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(both, timeout=60)
