import json
from typing import Any

import numpy as np
import pytest

from triune.core.errors import InvalidArgumentError
from triune.core.requests import CheckCache
from triune.frontends.kserve.http import request_templates as request_templates
from triune.frontends.kserve.http.codec import decode_request
from triune.frontends.kserve.http.request_templates import RequestTemplates


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The requests whose JSON was parsed."""
    seen: list[bytes] = []

    def parse(model: str, version: int | None, body: bytes, header_bytes: int | None) -> Any:
        seen.append(bytes(body))
        return decode_request(model, version, body, header_bytes)

    monkeypatch.setattr(request_templates, "decode_request", parse)
    return seen


def message(data: bytes, *, name: str = "x", datatype: str = "FP32", **fields: Any) -> tuple[bytes, int]:
    tensor = {"name": name, "datatype": datatype, "shape": [2], "parameters": {"binary_data_size": len(data)}}
    header = json.dumps({**fields, "inputs": [tensor]}, separators=(",", ":")).encode()
    return header + data, len(header)


def floats(*values: float) -> bytes:
    return np.array(values, np.float32).tobytes()


def test_the_json_is_parsed_once_whatever_the_id_and_data(parsed: list[bytes]) -> None:
    templates = RequestTemplates()
    for index, request_id in enumerate(["1", "two", "a/b c", ""]):
        body, size = message(floats(index, 1), id=request_id, parameters={"priority": 3, "timeout": 4, "own": "p"})
        request, form = templates.decode("m", 3, body, size)
        assert (request.model, request.version, request.id) == ("m", 3, request_id)
        assert (request.priority, request.timeout_us, request.parameters) == (3, 4, {"own": "p"})
        assert request.inputs["x"].tolist() == [index, 1]
        assert not form.is_binary
    assert len(parsed) == 1


def test_requests_are_alike_if_they_ask_the_same_version_of_the_same_model() -> None:
    templates = RequestTemplates()
    body, size = message(floats(1, 2), id="1")

    def check_cache(model: str, version: int | None) -> CheckCache | None:
        return templates.decode(model, version, body, size)[0].check_cache

    assert [check_cache("m", None), check_cache("n", None), check_cache("m", 1)] == [None] * 3
    known = [check_cache("m", None), check_cache("n", None), check_cache("m", 1)]
    assert None not in known
    assert len(set(known)) == 3
    assert check_cache("m", None) is known[0]


def test_a_small_misaligned_tensor_is_copied_to_where_cpp_may_read_it(parsed: list[bytes]) -> None:
    templates = RequestTemplates()
    for request_id in ("1", "12", "123", "1234", "12345"):
        body, size = message(floats(1, 2), id=request_id)
        array = templates.decode("m", None, body, size)[0].inputs["x"]
    assert array.flags.aligned
    assert len(parsed) == 1


def test_a_bytearray_is_viewed_read_only(parsed: list[bytes]) -> None:
    templates = RequestTemplates()
    for _ in range(2):
        body, size = message(floats(1, 2))
        request, _ = templates.decode("m", None, bytearray(body), size)
        assert not request.inputs["x"].flags.writeable
    assert len(parsed) == 1


@pytest.mark.parametrize(
    ("header", "count"),
    [
        ('{"id":"%s","inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}', 3),
        ('{ "id": "%s", "inputs": [] }', 3),
        ('{"id":"%s","inputs":[]}', 1),
    ],
)
def test_only_what_the_id_alone_tells_apart_is_a_template(parsed: list[bytes], header: str, count: int) -> None:
    templates = RequestTemplates()
    for request_id in ("a", "b", "c"):
        body = (header % request_id).encode()
        assert templates.decode("m", None, body, len(body))[0].id == request_id
    assert len(parsed) == count


@pytest.mark.parametrize("again", ['"id"', '"\\u0069d"'])
def test_an_id_that_comes_twice_is_refused_however_often(again: str) -> None:
    templates = RequestTemplates()
    for _ in range(2):
        body = f'{{"id":"a","inputs":[],{again}:"wins"}}'.encode()
        with pytest.raises(InvalidArgumentError, match="the key 'id' twice"):
            templates.decode("m", None, body, len(body))


@pytest.mark.parametrize("strange_id", ['a\\"b', "tab\t", "na\u00efve", "\\u0041"])
def test_an_id_that_is_not_plain_is_left_to_the_parser(parsed: list[bytes], strange_id: str) -> None:
    templates = RequestTemplates()
    body, size = message(floats(1, 2), id="plain")
    templates.decode("m", None, body, size)
    text = body.replace(b"plain", strange_id.encode())
    size += len(strange_id.encode()) - len(b"plain")
    try:
        expected = decode_request("m", None, text, size)[0].id
    except InvalidArgumentError:
        with pytest.raises(InvalidArgumentError):
            templates.decode("m", None, text, size)
    else:
        assert templates.decode("m", None, text, size)[0].id == expected
    assert len(parsed) == 2


def test_bytes_and_bools_are_checked_each_time() -> None:
    templates = RequestTemplates()
    good, size = message(b"\0\1", datatype="BOOL")
    assert templates.decode("m", None, good, size)[0].inputs["x"].tolist() == [False, True]
    other, size = message(b"\0\2", datatype="BOOL")
    assert templates.decode("m", None, other, size)[0].inputs["x"].view(np.uint8).tolist() == [0, 1]
    good, size = message(b"\0\0\0\0\0\0\0\0", datatype="BYTES")
    assert templates.decode("m", None, good, size)[0].inputs["x"].tolist() == [b"", b""]
    bad, size = message(b"\1\0\0\0\0\0\0\0", datatype="BYTES")
    with pytest.raises(InvalidArgumentError, match="ends after|claims"):
        templates.decode("m", None, bad, size)


def test_missing_and_surplus_bytes_are_still_errors() -> None:
    templates = RequestTemplates()
    body, size = message(floats(1, 2))
    templates.decode("m", None, body, size)
    with pytest.raises(InvalidArgumentError, match="4 bytes of the body are left for it"):
        templates.decode("m", None, body[:-4], size)
    with pytest.raises(InvalidArgumentError, match="1 bytes of the body are left over"):
        templates.decode("m", None, body + b"x", size)
    with pytest.raises(InvalidArgumentError, match="body has only"):
        templates.decode("m", None, body, len(body) + 1)


def test_templates_are_few_and_small() -> None:
    templates = RequestTemplates()
    for index in range(1000):
        body, size = message(floats(1, 2), name=f"x{index}")
        templates.decode("m", None, body, size)
        assert len(templates._known) <= 256
    body, size = message(floats(1, 2), name="x" * 10_000)
    before = len(templates._known)
    templates.decode("m", None, body, size)
    assert len(templates._known) == before
