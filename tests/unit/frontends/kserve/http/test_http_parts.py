import json
import zlib

import httptools
import numpy as np
import pytest

from support.configs import model_config
from triune.config.model_config import TensorConfig
from triune.core import errors
from triune.core.datatypes import DataType
from triune.core.errors import InvalidArgumentError, PayloadTooLargeError
from triune.core.requests import InferenceRequest
from triune.frontends.bodies.compression import Decompression, accepted_encoding, compress, is_worth_compressing
from triune.frontends.kserve.http.infer import Route, Routes
from triune.frontends.kserve.http.raw_request import decode_raw_request
from triune.frontends.kserve.http.statuses import error_body, status_of


@pytest.mark.parametrize(
    ("url", "route"),
    [
        (b"/v2/models/m/infer", Route("m", None)),
        (b"/v2/models/m/versions/12/infer", Route("m", 12)),
        (b"/v2/models/m/infer?a=b", Route("m", None)),
        (b"http://host:8000/v2/models/m/infer", Route("m", None)),
        (b"/v2/models/a%20b/infer", Route("a b", None)),
        (b"/v2/models/na%C3%AFve/infer", Route("naïve", None)),
        (b"/v2/models/stats/infer", Route("stats", None)),
        (b"/v2/models/a%2Fb/infer", None),
        (b"/v2/models/m/infer/", None),
        (b"/v2/models/m/versions/-1/infer", None),
        (b"/v2/models/m/versions//infer", None),
        (b"/v2/models//infer", None),
        (b"/v2/models/m", None),
        (b"/v2", None),
    ],
)
def test_which_paths_are_inferences(url: bytes, route: Route | None) -> None:
    routes = Routes()
    assert routes.find(url) == route
    assert routes.find(url) == route


def test_routes_remember_a_bounded_number_of_paths() -> None:
    routes = Routes()
    for index in range(5000):
        assert routes.find(b"/v2/models/m%d/infer" % index) == Route(f"m{index}", None)
    assert len(routes._known) <= 1024
    with pytest.raises(httptools.HttpParserError):
        routes.find(b"http://[")


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        ("", "identity"),
        ("gzip", "gzip"),
        ("deflate, gzip", "deflate"),
        ("gzip;q=0.2, deflate;q=0.8", "deflate"),
        ("gzip; q=0.2 , identity; q=1", "identity"),
        ("br, zstd", "identity"),
        ("gzip;q=0", "identity"),
        ("gzip;q=nan, deflate;q=inf", "identity"),
        ("gzip;q=x", "identity"),
        ("GZIP", "gzip"),
        ("*", "identity"),
    ],
)
def test_accepted_encodings(accept: str, encoding: str) -> None:
    assert accepted_encoding(accept) == encoding


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_the_limit_of_decompression_is_exact(encoding: str) -> None:
    packed = compress(encoding, [bytes(1000)])
    exact = Decompression(encoding, packed, 1000)
    assert not exact.step()
    assert exact.data == bytes(1000)
    with pytest.raises(PayloadTooLargeError, match="exceeds the maximum allowed value of 999 bytes"):
        Decompression(encoding, packed, 999).step()


def run(work: Decompression) -> None:
    while work.step():
        pass


def test_a_large_body_may_not_grow_by_any_ratio() -> None:
    packed = zlib.compress(bytes(16 << 20), 9)
    work = Decompression("deflate", packed, 64 << 20)
    with pytest.raises(PayloadTooLargeError, match="more than 200 times as many"):
        run(work)
    assert len(work.data) <= 9 << 20
    free = Decompression("deflate", packed, 64 << 20, max_ratio=2000)
    run(free)
    assert free.data == bytes(16 << 20)


def test_noise_is_not_worth_compressing() -> None:
    noise = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    assert not is_worth_compressing([b"{}", noise.data.cast("B")])
    assert is_worth_compressing([b"{}", bytes(200_000)])
    assert is_worth_compressing([b"a" * 1000])


def test_statuses_follow_the_nearest_base() -> None:
    class Fuller(errors.UnavailableError):
        pass

    assert status_of(Fuller()) == 503
    assert status_of(PayloadTooLargeError()) == 413
    assert status_of(errors.TriuneError()) == 400


def test_error_bodies() -> None:
    assert error_body('say "no"') == b'{"error":"say \\"no\\""}'
    assert json.loads(error_body("x" * 10_000))["error"] == "x" * 4096 + " ..."


def raw(tensors: list[TensorConfig], body: bytes, max_batch_size: int = 0) -> InferenceRequest:
    config = model_config(tensors, [], max_batch_size=max_batch_size)
    request, form = decode_raw_request("m", None, body, config)
    assert form.is_binary
    return request


def test_the_shape_of_a_raw_request() -> None:
    fixed = TensorConfig("x", DataType.INT16, (2, 3))
    free = TensorConfig("x", DataType.INT16, (2, -1, 3))
    word = TensorConfig("x", DataType.BYTES, (1,))
    assert raw([fixed], bytes(12)).inputs["x"].shape == (2, 3)
    assert raw([fixed], bytes(12), max_batch_size=4).inputs["x"].shape == (1, 2, 3)
    assert raw([free], bytes(48)).inputs["x"].shape == (2, 4, 3)
    assert raw([free], b"").inputs["x"].shape == (2, 0, 3)
    assert raw([word], b"abc", max_batch_size=4).inputs["x"].tolist() == [[b"abc"]]


@pytest.mark.parametrize(
    ("tensors", "body", "message"),
    [
        ([], b"", "^Raw request must only have 1 input .found 1. to be deduced but got 0 inputs in 'm' model"),
        (
            [TensorConfig("x", DataType.INT8, (1,)), TensorConfig("y", DataType.INT8, (1,))],
            b"",
            "got 2 inputs in 'm' model",
        ),
        ([TensorConfig("x", DataType.INT16, (2, 3))], bytes(11), "Expected 12, got 11"),
        ([TensorConfig("x", DataType.INT16, (-1, 3))], bytes(7), "Expected 6, got 7"),
        ([TensorConfig("x", DataType.INT16, (-1, 0))], bytes(2), "Expected 0, got 2"),
        ([TensorConfig("x", DataType.INT16, (-1, -1))], bytes(2), "^The shape of the raw input 'x' can not be deduced"),
        (
            [TensorConfig("x", DataType.BYTES, (2,))],
            b"",
            "^For BYTE datatype raw input 'x', the model must have input shape .1.",
        ),
        (
            [TensorConfig("x", DataType.BYTES, (-1,))],
            b"",
            "^For BYTE datatype raw input 'x', the model must have input shape .1.",
        ),
    ],
)
def test_raw_requests_that_do_not_settle_their_shape(tensors: list[TensorConfig], body: bytes, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        raw(tensors, body)
