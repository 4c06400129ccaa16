"""Laws of the wire codec: what goes out comes back, and no bytes raise anything but a typed error."""

import dataclasses
import gzip
import json
import zlib
from typing import Any

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from support.examples import examples
from triune.core.datatypes import Array, DataType
from triune.core.errors import TriuneError
from triune.core.requests import InferenceResponse
from triune.frontends.bodies.compression import Body, Decompression, accepted_encoding, compress, is_compressed
from triune.frontends.kserve.http.codec import decode_request, encode_response
from triune.frontends.kserve.http.json_tensors import decode_json, encode_json
from triune.frontends.kserve.http.request_templates import RequestTemplates
from triune.frontends.kserve.tensors import decode_raw, encode_raw

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
DATATYPES = st.sampled_from(list(DataType))
JSON_DATATYPES = st.sampled_from([each for each in DataType if each not in (DataType.FP16, DataType.BF16)])
MAX_BYTES = 1 << 16

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4),
    max_leaves=12,
)


@st.composite
def arrays(draw: st.DrawFn, datatypes: st.SearchStrategy[DataType] = DATATYPES, *, is_text: bool = False) -> Array:
    datatype, shape = draw(datatypes), draw(SHAPES)
    if datatype is DataType.BYTES:
        size = int(np.prod(shape))
        texts = st.text(max_size=5).map(str.encode) if is_text else st.binary(max_size=5)
        array = np.empty(size, np.object_)
        array[:] = draw(st.lists(texts, min_size=size, max_size=size))
        return array.reshape(shape)
    if datatype in (DataType.BOOL, DataType.BF16):
        bits = draw(hnp.arrays(np.float32, shape, elements=st.floats(width=32)))
        return bits.astype(datatype.dtype)
    return draw(hnp.arrays(datatype.dtype, shape))


def bits_equal(left: Array, right: Array) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype == np.object_:
        return left.tolist() == right.tolist()
    return left.tobytes() == right.tobytes()


@given(arrays(), st.sampled_from(["as it is", "transposed", "reversed"]), st.integers(0, 7))
def test_raw_bytes_come_back_at_any_alignment(array: Array, layout: str, offset: int) -> None:
    array = {"as it is": array, "transposed": array.T, "reversed": array[::-1] if array.ndim else array}[layout]
    data = bytes(offset) + bytes(encode_raw(array))
    decoded = decode_raw("x", DataType.of(array), array.shape, memoryview(data)[offset:])
    assert bits_equal(decoded, array)
    assert not decoded.flags.writeable


@given(arrays(JSON_DATATYPES, is_text=True), st.booleans())
def test_json_comes_back(array: Array, is_nested: bool) -> None:
    datatype = DataType.of(array)
    text = encode_json("x", array)
    if datatype.dtype.kind == "f" and not np.isfinite(array).all():
        # Python's parser reads NaN and Infinity, as Triton's clients do.
        assert np.array_equal(np.array(json.loads(text), array.dtype), array.ravel(), equal_nan=True)
        return
    data: Any = orjson.loads(text)
    if is_nested and array.size:
        data = np.array(data, dtype=np.object_).reshape(array.shape).tolist() if array.ndim else data
    assert bits_equal(decode_json("x", datatype, array.shape, data), array)


@given(DATATYPES, st.lists(st.integers(-2, 6) | st.integers(), max_size=70), st.binary(max_size=64))
def test_no_raw_bytes_raise_anything_but_a_typed_error(datatype: DataType, shape: list[int], data: bytes) -> None:
    try:
        array = decode_raw("x", datatype, tuple(shape), data)
    except TriuneError:
        return
    assert array.shape == tuple(shape)
    assert bytes(encode_raw(array)) == data


@given(DATATYPES, st.lists(st.integers(-2, 4) | st.integers(), max_size=5), JSON_VALUES)
def test_no_json_data_raise_anything_but_a_typed_error(datatype: DataType, shape: list[int], data: Any) -> None:
    try:
        array = decode_json("x", datatype, tuple(shape), data)
    except TriuneError:
        return
    assert (array.shape, array.dtype) == (tuple(shape), datatype.dtype)


@given(st.dictionaries(st.text(min_size=1, max_size=5), arrays(is_text=True), max_size=4), st.data(), st.booleans())
def test_a_request_and_its_response_come_back(tensors: dict[str, Array], data: st.DataObject, default: bool) -> None:
    items: list[dict[str, Any]] = []
    raw = b""
    by_name: dict[str, bool] = {}
    for name, array in tensors.items():
        datatype = DataType.of(array)
        has_json = datatype not in (DataType.FP16, DataType.BF16)
        is_finite = datatype.dtype.kind != "f" or bool(np.isfinite(array.astype(np.float64)).all())
        item: dict[str, Any] = {"name": name, "datatype": datatype.value, "shape": array.shape}
        if has_json and is_finite and data.draw(st.booleans()):
            item["data"] = orjson.Fragment(encode_json(name, array))
        else:
            piece = bytes(encode_raw(array))
            item["parameters"] = {"binary_data_size": len(piece)}
            raw += piece
        by_name[name] = not has_json or data.draw(st.booleans())
        items.append(item)
    outputs = [{"name": name, "parameters": {"binary_data": is_binary}} for name, is_binary in by_name.items()]
    header = orjson.dumps(
        {"id": "i", "inputs": items, "outputs": outputs, "parameters": {"binary_data_output": default}}
    )
    request, form = decode_request("m", 3, header + raw, len(header))
    assert (request.model, request.version, request.id) == ("m", 3, "i")
    assert (form.is_binary, form.by_name) == (default, by_name)
    assert list(request.inputs) == list(tensors)
    assert all(bits_equal(request.inputs[name], array) for name, array in tensors.items())

    # What was seen before is decoded as if it had not been, whatever its id.
    templates = RequestTemplates()
    for request_id in ("i", "", "another", 'a "quoted" one', "naïve", "\n"):
        again = orjson.dumps({**orjson.loads(header), "id": request_id})
        body = again + raw
        expected, expected_form = decode_request("m", 3, body, len(again))
        for buffer in (body, bytearray(body)):
            other, other_form = templates.decode("m", 3, buffer, len(again))
            assert other_form == expected_form
            assert all(bits_equal(other.inputs[name], array) for name, array in expected.inputs.items())
            assert dataclasses.replace(other, inputs={}) == dataclasses.replace(expected, inputs={})

    parts, size = encode_response(InferenceResponse("m", 3, request.inputs, "i"), form)
    assert (size is None) == (len(parts) == 1)
    document, binary = json.loads(bytes(parts[0])), b"".join(parts[1:])
    assert size in (None, len(parts[0]))
    for item in document["outputs"]:
        array = tensors[item["name"]]
        assert (item["datatype"], tuple(item["shape"])) == (DataType.of(array).value, array.shape)
        if by_name[item["name"]]:
            length = item["parameters"]["binary_data_size"]
            assert binary[:length] == bytes(encode_raw(array))
            binary = binary[length:]
        else:
            assert len(item["data"]) == array.size
    assert binary == b""


@examples(300)
@given(st.binary(max_size=200), st.none() | st.integers(0, 300))
def test_no_body_raises_anything_but_a_typed_error(body: bytes, header_bytes: int | None) -> None:
    try:
        decode_request("m", None, body, header_bytes)
    except TriuneError:
        return


INPUT = st.fixed_dictionaries(
    {},
    optional={
        "name": JSON_VALUES | st.just("x"),
        "datatype": JSON_VALUES | DATATYPES.map(lambda each: each.value),
        "shape": JSON_VALUES | st.lists(st.integers(0, 3), max_size=3),
        "data": JSON_VALUES | st.lists(st.floats(allow_nan=False) | st.integers(), max_size=4),
        "parameters": JSON_VALUES | st.fixed_dictionaries({"binary_data_size": st.integers(-3, 30) | JSON_VALUES}),
    },
)
OUTPUT = st.fixed_dictionaries(
    {},
    optional={
        "name": JSON_VALUES | st.just("y"),
        "parameters": JSON_VALUES
        | st.fixed_dictionaries({}, optional={"classification": JSON_VALUES, "binary_data": JSON_VALUES}),
    },
)
RESERVED = [
    "priority",
    "timeout",
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "binary_data_output",
    "triton_x",
    "x",
]
REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON_VALUES,
        "inputs": JSON_VALUES | st.lists(INPUT | JSON_VALUES, max_size=3),
        "outputs": JSON_VALUES | st.lists(OUTPUT | JSON_VALUES, max_size=3),
        "parameters": JSON_VALUES | st.dictionaries(st.sampled_from(RESERVED), JSON_VALUES, max_size=3),
    },
)


@examples(500)
@given(REQUEST, st.binary(max_size=30))
def test_no_document_raises_anything_but_a_typed_error(document: Any, raw: bytes) -> None:
    header = json.dumps(document).encode()
    try:
        request, _ = decode_request("m", None, header + raw, len(header))
    except TriuneError:
        return
    assert 0 <= request.priority < 2**63
    assert 0 <= request.timeout_us < 2**63


def decompress(encoding: str, body: Body, max_bytes: int) -> Body:
    if not is_compressed(encoding):
        return body
    work = Decompression(encoding, body, max_bytes)
    while work.step():
        pass
    return work.data


@given(st.lists(st.binary(max_size=100), max_size=4), st.sampled_from(["gzip", "deflate"]))
def test_compressed_bytes_come_back(parts: list[bytes], encoding: str) -> None:
    packed = compress(encoding, parts)
    whole = b"".join(parts)
    assert {"gzip": gzip.decompress, "deflate": zlib.decompress}[encoding](packed) == whole
    assert decompress(encoding, packed, MAX_BYTES) == whole


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "identity", "br"]), st.integers(0, 50))
def test_no_compressed_bytes_raise_anything_but_a_typed_error(data: bytes, encoding: str, flip: int) -> None:
    broken = bytearray(zlib.compress(data))
    broken[flip % len(broken)] ^= 1 << (flip % 8)
    for each in (data, bytes(broken)):
        try:
            assert len(decompress(encoding, each, 64)) <= max(64, len(each))
        except TriuneError:
            continue


@given(st.text() | st.from_regex(r"(gzip|deflate|identity|br|\*)(;q=[0-9.a-z]*)?(, ?(gzip|deflate)(;q=.*)?)*"))
def test_any_accept_encoding_names_one_that_we_know(accept: str) -> None:
    assert accepted_encoding(accept) in ("gzip", "deflate", "identity")
