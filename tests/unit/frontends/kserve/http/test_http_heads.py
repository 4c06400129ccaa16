import pytest

from triune.frontends.kserve.http.heads import KnownHeads, num_head_bytes, without_upgrade
from triune.frontends.kserve.http.infer import Route

ROUTE = Route("m", None)
HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
HEADERS = {b"host": b"x", b"content-length": b"4"}


def test_a_head_that_came_before_is_known_with_any_body() -> None:
    heads = KnownHeads()
    assert heads.find(HEAD + b"abcd") is None
    heads.learn(HEAD + b"abcd", ROUTE, HEADERS)
    head = heads.find(HEAD + b"wxyz")
    assert head is not None
    assert head.route is ROUTE
    assert head.headers == HEADERS
    assert (HEAD + b"wxyz")[head.num_bytes :] == b"wxyz"


@pytest.mark.parametrize(
    "data",
    [HEAD, HEAD + b"abc", HEAD + b"abcde", HEAD + b"abcd" + HEAD + b"abcd", b"\r\n" + HEAD + b"abcd", HEAD[:-2], b""],
)
def test_only_one_whole_request_is_found(data: bytes) -> None:
    heads = KnownHeads()
    heads.learn(HEAD + b"abcd", ROUTE, HEADERS)
    assert heads.find(data) is None


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (HEAD + b"abc", HEADERS),
        (HEAD + b"abcd", {b"host": b"x", b"transfer-encoding": b"chunked"}),
        (HEAD + b"abcd", HEADERS | {b"expect": b"100-continue"}),
        (HEAD + b"abcd", HEADERS | {b"connection": b"keep-alive"}),
        (HEAD + b"abcd", HEADERS | {b"upgrade": b"h2c"}),
        (HEAD[:-4] + b"\r\nX: " + b"y" * 5000 + b"\r\n\r\nabcd", HEADERS),
    ],
)
def test_what_is_not_plain_is_not_learnt(data: bytes, headers: dict[bytes, bytes]) -> None:
    heads = KnownHeads()
    heads.learn(data, ROUTE, headers)
    assert heads.find(data) is None


def test_memory_is_bounded() -> None:
    heads = KnownHeads()
    for index in range(3000):
        data = b"POST /%d HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd" % index
        heads.learn(data, ROUTE, {b"content-length": b"4"})
    assert len(heads._heads) <= 1024
    assert heads.find(b"POST /2999 HTTP/1.1\r\nContent-Length: 4\r\n\r\nefgh") is not None


def test_a_head_is_written_again_without_its_upgrade() -> None:
    headers = [(b"host", b"x"), (b"upgrade", b"h2c"), (b"connection", b"Upgrade, HTTP2-Settings"), (b"a", b"1")]
    head = without_upgrade(b"POST", b"/v2", b"1.1", headers)
    assert head == b"POST /v2 HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\na: 1\r\n\r\n"
    closing = without_upgrade(b"GET", b"/", b"1.1", [(b"connection", b"Upgrade, Close")])
    assert closing == b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n"
    assert num_head_bytes(b"/v2", headers) == len(b"/v2") + sum(len(n) + len(v) + 4 for n, v in headers)
