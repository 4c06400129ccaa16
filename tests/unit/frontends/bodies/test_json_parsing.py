import json
import math
import tracemalloc

import pytest

from triune.core.errors import InvalidArgumentError
from triune.frontends.bodies.json_parsing import parse_json
from triune.frontends.kserve.http.codec import decode_request


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
        ("Inf", math.inf),
        ("-Inf", -math.inf),
        ("[1.5, Inf]", [1.5, math.inf]),
        ('{"NaN": "-NaN", "data": [-Inf, "Inf\\"", {"\\\\": Infinity}]}', None),
    ],
)
def test_numbers_that_are_not_finite_are_rapidjsons(text: str, value: object) -> None:
    expected = {"NaN": "-NaN", "data": [-math.inf, 'Inf"', {"\\": math.inf}]} if value is None else value
    assert parse_json(text.encode()) == expected


def test_nan() -> None:
    for text in (b"[NaN]", b"[-NaN]"):
        (value,) = parse_json(text)  # type: ignore[misc]
        assert math.isnan(value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"nan",
        b"NaNs",
        b"Infinit",
        b"+Inf",
        b"[NaN, 1.]",
        b"[NaN, 01]",
        b"[NaN 1]",
        b'[NaN, "\\ud800"]',
        b'[NaN, "\n"]',
        b'[NaN, "\xff"]',
        b'[NaN, "]',
        b"\xef\xbb\xbf[1]",
        b"[NaN, 1e999]",
        b"{NaN: 1}",
    ],
)
def test_all_else_is_as_strict_as_before(text: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match="not valid JSON"):
        parse_json(text)


def test_large_whole_numbers_are_the_same_beside_nan() -> None:
    numbers = "[-9223372036854775808, 18446744073709551615, 18446744073709551616, -9223372036854775809]"
    plain, beside = parse_json(numbers.encode()), parse_json(f"{numbers[:-1]}, NaN]".encode())
    assert isinstance(plain, list)
    assert isinstance(beside, list)
    assert [(each, type(each)) for each in beside[:-1]] == [(each, type(each)) for each in plain]


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 1}',
        '{"a":1,"b":{"c":1},"a" :2}',
        '{"a"\n:1, "\\u0061"\t: 2}',
        '{"inputs": [{"name": "x", "shape": [1], "shape": [2]}]}',
        '{"inputs": [1, {"a": 1, "a": 2}]}',
        '{"a": [[{"a": 1, "a": 2}]]}',
        '{"x": {"y": {"a": 1, "b": ":", "a": 2}}}',
        '{"a": NaN, "a": 1}',
    ],
)
def test_a_key_that_is_given_twice_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"has the key '(a|shape)' twice in one object"):
        parse_json(text.encode())


@pytest.mark.parametrize(
    "value",
    [
        {"a": ['{"a": 1}', " :", '":']},
        {'a" :': {"a": [{"a": 1}, {"a": 2}]}},
        [{"a": 1}, {"a": 1}],
        {"data": [1, {"a": 1}], "parameters": {}},
    ],
)
def test_strings_that_look_like_keys_are_none(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(memoryview(json.dumps(value, indent=1).encode())) == value


@pytest.mark.parametrize(
    ("text", "is_twice"),
    [
        ('{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[-Inf,NaN]}],"id":"a:\\":b"}', False),
        ('{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[Inf,1]}],"parameters":{"a":1,"a":2}}', True),
        (
            '{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}],"outputs":[{"name":"y","name":"z"}]}',
            True,
        ),
        ('{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}],"else":{"a":{"b":1,"b":2}}}', True),
        ('{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}],"else":{"a":{"b":1}}}', False),
    ],
)
def test_requests_are_looked_through_for_repeats(text: str, is_twice: bool) -> None:
    if not is_twice:
        assert decode_request("m", None, text.encode(), None)[0].inputs["x"].size
        return
    with pytest.raises(InvalidArgumentError, match="twice in one object"):
        decode_request("m", None, text.encode(), None)


@pytest.mark.parametrize("text", [b"A" * (4 << 20), b'\\"' * (2 << 20)])
def test_a_long_string_beside_one_that_looks_like_a_key_takes_no_memory_of_its_own(text: bytes) -> None:
    body = b'{"config":"{\\"backend\\":\\"x\\"}","file":"' + text + b'"}'
    tracemalloc.start()
    document = parse_json(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * len(body)
    assert document["file"] == json.loads(b'"' + text + b'"')  # type: ignore[index]


def test_a_long_string_without_an_end_is_passed_over_once() -> None:
    # Each of its quotes tried as a beginning, it takes hours.
    with pytest.raises(InvalidArgumentError):
        parse_json(b'{"x":NaN,"y":"' + b'\\"' * (1 << 20))


@pytest.mark.parametrize("unit", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("before", ['{"x": %s}', '{"x": NaN, "y": %s}', '{"x": "a:b", "y": %s}'])
def test_json_of_any_depth_is_taken_or_refused_in_our_words(unit: str, before: str) -> None:
    closing = "".join({"[": "]", "{": "}"}[each] for each in reversed(unit) if each in "[{")

    def refusal(depth: int) -> str:
        count = depth // len(closing)
        try:
            parse_json((before % (unit * count + "1" + closing * count)).encode())
        except InvalidArgumentError as error:
            return str(error)
        return ""

    assert not refusal(500)
    ours = "the request's JSON is nested too deep: about 1,000 levels of arrays and objects are the limit; send it flat"
    assert {refusal(depth) for depth in (900, 950, 980, 1000, 1020, 1100)} <= {"", ours}
    assert refusal(1100) == refusal(100_000) == ours
