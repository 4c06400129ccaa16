import struct
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from triune.core.datatypes import DataType
from triune.core.errors import InternalError, InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.requests import InferenceResponse, RequestedOutput
from triune.frontends.kserve.grpc.codec import (
    decode_request,
    encode_response,
    is_empty_final_wanted,
    parse_request,
    parse_version,
)
from triune.protos.grpc_service_pb2 import InferParameter, ModelInferRequest

Tensor = ModelInferRequest.InferInputTensor


def raw(datatype: str, shape: list[int], data: bytes, name: str = "x") -> ModelInferRequest:
    return ModelInferRequest(
        model_name="m", inputs=[Tensor(name=name, datatype=datatype, shape=shape)], raw_input_contents=[data]
    )


def typed(datatype: str, shape: list[int], **contents: Any) -> ModelInferRequest:
    message = ModelInferRequest(model_name="m", inputs=[Tensor(name="x", datatype=datatype, shape=shape)])
    message.inputs[0].contents.SetInParent()
    for field, values in contents.items():
        getattr(message.inputs[0].contents, field).extend(values)
    return message


def decoded(message: ModelInferRequest) -> np.ndarray:
    return decode_request(parse_request(message.SerializeToString())).inputs["x"]


NUMBERS = [each for each in DataType if each is not DataType.BYTES]


@pytest.mark.parametrize("datatype", NUMBERS)
def test_raw_round_trip(datatype: DataType) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(datatype.dtype)
    result = decoded(raw(datatype.value, [2, 3], array.tobytes()))
    assert result.dtype == datatype.dtype
    assert not result.flags.writeable
    np.testing.assert_array_equal(result, array)
    message = encode_response(InferenceResponse("m", 1, {"y": result}))
    assert message.outputs[0].datatype == datatype.value
    assert list(message.outputs[0].shape) == [2, 3]
    assert message.raw_output_contents[0] == array.tobytes()


def test_raw_bytes_round_trip() -> None:
    elements = [b"", b"\x00\xff", "日本".encode()]
    data = b"".join(struct.pack("<I", len(each)) + each for each in elements)
    result = decoded(raw("BYTES", [3], data))
    assert result.tolist() == elements
    assert encode_response(InferenceResponse("m", 1, {"y": result})).raw_output_contents[0] == data


TYPED = {
    "BOOL": ("bool_contents", [True, False]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-32768, 32767]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 65535]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "FP32": ("fp32_contents", [1.5, float("inf")]),
    "FP64": ("fp64_contents", [1e-300, -2.0]),
    "BYTES": ("bytes_contents", [b"", b"\x00ab"]),
}


@pytest.mark.parametrize("name", TYPED)
def test_typed_contents(name: str) -> None:
    field, values = TYPED[name]
    result = decoded(typed(name, [2, 1], **{field: values}))
    assert result.dtype == DataType(name).dtype
    assert result.shape == (2, 1)
    assert result.ravel().tolist() == values


@pytest.mark.parametrize(
    ("name", "value"), [("INT8", 128), ("INT8", -129), ("INT16", 40000), ("UINT8", 256), ("UINT16", 65536)]
)
def test_typed_number_out_of_range(name: str, value: int) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"holds {value}.*between"):
        decoded(typed(name, [2], **{TYPED[name][0]: [0, value]}))


@pytest.mark.parametrize("name", ["FP16", "BF16"])
def test_half_precision_travels_raw_only(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="raw_input_contents"):
        decoded(typed(name, [1], fp32_contents=[1.0]))


def test_bf16_values_survive() -> None:
    array = np.array([1.5, -3.0, 0.0], ml_dtypes.bfloat16)
    np.testing.assert_array_equal(decoded(raw("BF16", [3], array.tobytes())), array)


def test_tensor_without_elements() -> None:
    assert decoded(raw("FP32", [0, 4], b"")).shape == (0, 4)
    assert decoded(typed("INT8", [3, 0])).shape == (3, 0)
    without = ModelInferRequest(inputs=[Tensor(name="x", datatype="BYTES", shape=[0])])
    assert decoded(without).shape == (0,)


def test_scalar() -> None:
    assert decoded(raw("FP32", [], struct.pack("<f", 2.5))).item() == 2.5
    assert decoded(typed("INT64", [], int64_contents=[7])).item() == 7


HUGE = 2**62
WRONG = {
    "unknown datatype": (raw("FLOAT", [1], b"1234"), "unknown datatype 'FLOAT'"),
    "empty datatype": (raw("", [1], b"1234"), "unknown datatype ''"),
    "lower-case datatype": (raw("fp32", [1], b"1234"), "unknown datatype"),
    "negative dimension": (raw("FP32", [-1], b"1234"), "-1"),
    "dimensions that cancel": (raw("FP32", [-1, -1], b"1234"), "-1"),
    "overflowing shape": (raw("FP32", [HUGE, HUGE], b"1234"), "exceed maximum size"),
    "shape that wraps to zero": (raw("FP32", [2**32, 2**32], b""), "exceed maximum size"),
    "claims more than came": (raw("FP32", [2**40], b"1234"), "got 4"),
    "one byte short": (raw("FP32", [1], b"123"), "got 3"),
    "one byte long": (raw("FP32", [1], b"12345"), "got 5"),
    "rank too high": (raw("FP32", [1] * 65, b"1234"), "65 dimensions"),
    "BYTES length past the end": (raw("BYTES", [1], struct.pack("<I", 2**31) + b"abc"), "claims 2147483648"),
    "BYTES claims many elements": (raw("BYTES", [2**40], b"\0" * 8), "the server takes 1048576 at once"),
    "typed count too small": (typed("FP32", [3], fp32_contents=[1, 2]), "has 3 elements, but 2 came"),
    "typed count too large": (typed("FP32", [1], fp32_contents=[1, 2]), "has 1 elements, but 2 came"),
    "typed claims 2**62": (typed("FP32", [2**40], fp32_contents=[1]), "but 1 came"),
    "typed in the wrong field": (typed("FP32", [1], fp64_contents=[1]), "put them in fp32_contents"),
    "typed in two fields": (typed("FP32", [1], fp32_contents=[1], int_contents=[1]), "int_contents"),
    "typed and empty": (typed("FP32", [1]), "but 0 came"),
    "no data at all": (ModelInferRequest(inputs=[Tensor(name="x", datatype="FP32", shape=[1])]), "no data"),
    "more raw than inputs": (ModelInferRequest(raw_input_contents=[b""]), "0 inputs but 1"),
    "version is a word": (ModelInferRequest(model_version="latest"), "'latest'"),
    "version is negative": (ModelInferRequest(model_version="-1"), "'-1'"),
    "version is not ASCII": (ModelInferRequest(model_version="²"), "is not a version"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_request(case: str) -> None:
    message, expected = WRONG[case]
    with pytest.raises(InvalidArgumentError, match=expected.replace("[", r"\[")):
        decode_request(parse_request(message.SerializeToString()))


def test_fewer_raw_than_inputs() -> None:
    message = raw("FP32", [1], b"1234")
    message.inputs.add(name="z", datatype="FP32", shape=[1])
    with pytest.raises(InvalidArgumentError, match="2 inputs but 1 raw_input_contents"):
        decode_request(message)


def test_raw_and_typed_do_not_mix() -> None:
    message = raw("FP32", [1], b"1234")
    message.inputs[0].contents.fp32_contents.append(1)
    with pytest.raises(InvalidArgumentError, match="one or the other"):
        decode_request(message)


def test_input_twice() -> None:
    message = raw("FP32", [1], b"1234")
    message.inputs.add(name="x", datatype="FP32", shape=[1])
    message.raw_input_contents.append(b"1234")
    with pytest.raises(InvalidArgumentError, match="input 'x' already exists in request"):
        decode_request(message)


def test_bytes_that_are_no_message() -> None:
    with pytest.raises(InvalidArgumentError, match="3 bytes received are not a valid ModelInferRequest"):
        parse_request(b"\xff\xff\xff")
    with pytest.raises(InvalidArgumentError, match="not a valid ModelInferRequest"):
        parse_request(b"\x0a\x02\xff\xfe")  # model_name that is not UTF-8


def test_version() -> None:
    assert parse_version("") is None
    assert parse_version("3") == 3
    assert parse_version("9" * 18) == 10**18 - 1
    for digits in (19, 5000):
        with pytest.raises(NotFoundError, match="no model has version '9"):
            parse_version("9" * digits)


def with_parameters(**values: InferParameter) -> ModelInferRequest:
    return ModelInferRequest(model_name="m", parameters=values)


def test_parameters_of_every_kind() -> None:
    request = decode_request(
        with_parameters(
            a=InferParameter(bool_param=True),
            b=InferParameter(int64_param=-5),
            c=InferParameter(string_param="text"),
            d=InferParameter(double_param=0.25),
            e=InferParameter(uint64_param=2**64 - 1),
            sequence_id=InferParameter(string_param="s"),
            sequence_start=InferParameter(bool_param=True),
        )
    )
    assert request.parameters == {
        "a": True,
        "b": -5,
        "c": "text",
        "d": 0.25,
        "e": 2**64 - 1,
        "sequence_id": "s",
        "sequence_start": True,
    }
    assert (request.priority, request.timeout_us) == (0, 0)


def test_steering_parameters_do_not_reach_the_model() -> None:
    message = with_parameters(
        priority=InferParameter(uint64_param=2),
        timeout=InferParameter(int64_param=1500),
        triton_enable_empty_final_response=InferParameter(bool_param=True),
    )
    request = decode_request(message)
    assert request.priority == 2
    assert request.timeout_us == 1500
    assert request.parameters == {}
    assert is_empty_final_wanted(message)
    assert not is_empty_final_wanted(ModelInferRequest())


def test_a_priority_is_any_that_a_config_may_have() -> None:
    request = decode_request(with_parameters(priority=InferParameter(uint64_param=2**64 - 1)))
    assert request.priority == 2**64 - 1


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("priority", InferParameter(int64_param=-1), "between 0 and"),
        ("timeout", InferParameter(uint64_param=2**63), "between 0 and"),
        ("priority", InferParameter(string_param="high"), "came as string_param"),
        ("priority", InferParameter(bool_param=True), "came as bool_param"),
        ("timeout", InferParameter(double_param=1.5), "came as double_param"),
        ("timeout", InferParameter(int64_param=-1), "between 0 and"),
        ("sequence_id", InferParameter(bool_param=True), "came as bool_param"),
        ("sequence_end", InferParameter(int64_param=1), "expected bool_param"),
        ("triton_enable_empty_final_response", InferParameter(int64_param=1), "expected bool_param"),
        ("triton_mine", InferParameter(int64_param=1), "reserved"),
        ("anything", InferParameter(), "no value"),
    ],
)
def test_wrong_parameter(name: str, value: InferParameter, expected: str) -> None:
    with pytest.raises(InvalidArgumentError, match=expected):
        decode_request(with_parameters(**{name: value}))


def output(**parameters: InferParameter) -> ModelInferRequest:
    return ModelInferRequest(outputs=[ModelInferRequest.InferRequestedOutputTensor(name="y", parameters=parameters)])


def test_outputs_and_classification() -> None:
    assert decode_request(output()).outputs == (RequestedOutput("y"),)
    request = decode_request(output(classification=InferParameter(int64_param=3)))
    assert request.outputs == (RequestedOutput("y", 3),)
    assert decode_request(output(mine=InferParameter(bool_param=True))).outputs == (RequestedOutput("y"),)


@pytest.mark.parametrize(
    "value",
    [
        InferParameter(int64_param=-3),
        InferParameter(string_param="3"),
        InferParameter(bool_param=True),
        InferParameter(double_param=2.0),
    ],
)
def test_wrong_classification(value: InferParameter) -> None:
    with pytest.raises(InvalidArgumentError, match="classification of output 'y'"):
        decode_request(output(classification=value))


def test_shared_memory_is_refused() -> None:
    region = {"shared_memory_region": InferParameter(string_param="r")}
    with pytest.raises(UnsupportedError, match="output 'y' is in shared memory"):
        decode_request(output(**region))
    message = ModelInferRequest(inputs=[Tensor(name="x", datatype="FP32", shape=[1], parameters=region)])
    with pytest.raises(UnsupportedError, match="input 'x' is in shared memory"):
        decode_request(message)


def test_response() -> None:
    parameters = {"a": True, "b": 3, "c": 2**64 - 1, "d": 0.5, "e": "text", "f": -(2**63)}
    strided = np.arange(12, dtype=np.int32).reshape(3, 4).T
    message = encode_response(
        InferenceResponse("m", 7, {"y": strided, "z": np.float16(1)[()].reshape(())}, "id", parameters)
    )
    assert (message.model_name, message.model_version, message.id) == ("m", "7", "id")
    assert list(message.outputs[0].shape) == [4, 3]
    assert message.raw_output_contents[0] == np.ascontiguousarray(strided).tobytes()
    assert list(message.outputs[1].shape) == []
    assert {name: getattr(each, each.WhichOneof("parameter_choice")) for name, each in message.parameters.items()} == (
        parameters
    )
    assert message.parameters["a"].WhichOneof("parameter_choice") == "bool_param"
    assert message.parameters["c"].WhichOneof("parameter_choice") == "uint64_param"


def test_response_parameter_that_does_not_fit() -> None:
    with pytest.raises(InternalError, match="64 bits"):
        encode_response(InferenceResponse("m", 1, {}, parameters={"n": 2**64}))
    with pytest.raises(InternalError, match="64 bits"):
        encode_response(InferenceResponse("m", 1, {}, parameters={"n": -(2**63) - 1}))


def test_large_tensor_is_decoded_whole() -> None:
    array = np.arange(1_000_000, dtype=np.float32)
    np.testing.assert_array_equal(decoded(raw("FP32", [1000, 1000], array.tobytes())), array.reshape(1000, 1000))
    message = encode_response(InferenceResponse("m", 1, {"y": array}))
    assert message.raw_output_contents[0] == array.tobytes()


def test_response_larger_than_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triune.frontends.kserve.grpc.codec.MAX_RESPONSE_BYTES", 100)
    half = np.zeros(60, np.uint8)
    encode_response(InferenceResponse("m", 1, {"a": half}))
    with pytest.raises(InvalidArgumentError, match="up to 'b' take 120 bytes, more than the 100"):
        encode_response(InferenceResponse("m", 1, {"a": half, "b": half}))
