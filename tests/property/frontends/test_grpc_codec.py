"""Whatever bytes or fields a client sends, the codec answers with a request or with a typed error."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from triune.core.datatypes import DataType
from triune.core.errors import TriuneError
from triune.core.requests import InferenceResponse
from triune.frontends.kserve.grpc.codec import decode_request, encode_response, parse_request
from triune.protos.grpc_service_pb2 import InferParameter, InferTensorContents, ModelInferRequest

Tensor = ModelInferRequest.InferInputTensor
Output = ModelInferRequest.InferRequestedOutputTensor

names = st.sampled_from(["x", "y", "", "priority", "timeout", "classification", "shared_memory_region", "triton_x"])
datatypes = st.sampled_from([*(each.value for each in DataType), "", "FP33", "fp32"])
dims = st.lists(st.one_of(st.integers(0, 4), st.integers(-(2**63), 2**63 - 1)), max_size=5)
parameters = st.dictionaries(
    names,
    st.one_of(
        st.builds(InferParameter),
        st.builds(InferParameter, bool_param=st.booleans()),
        st.builds(InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1)),
        st.builds(InferParameter, uint64_param=st.integers(0, 2**64 - 1)),
        st.builds(InferParameter, double_param=st.floats()),
        st.builds(InferParameter, string_param=st.text(max_size=5)),
    ),
    max_size=3,
)
contents = st.one_of(
    st.none(),
    st.builds(
        InferTensorContents,
        bool_contents=st.lists(st.booleans(), max_size=2),
        int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
        uint64_contents=st.lists(st.integers(0, 2**64 - 1), max_size=2),
        fp32_contents=st.lists(st.floats(width=32), max_size=4),
        bytes_contents=st.lists(st.binary(max_size=4), max_size=2),
    ),
)
tensors = st.builds(Tensor, name=names, datatype=datatypes, shape=dims, parameters=parameters, contents=contents)
requests = st.builds(
    ModelInferRequest,
    model_name=st.text(max_size=5),
    model_version=st.text(max_size=3),
    id=st.text(max_size=5),
    parameters=parameters,
    inputs=st.lists(tensors, max_size=3),
    outputs=st.lists(st.builds(Output, name=names, parameters=parameters), max_size=2),
    raw_input_contents=st.lists(st.binary(max_size=40), max_size=3),
)


def decodes_or_says_why(data: bytes) -> None:
    try:
        request = decode_request(parse_request(data))
    except TriuneError as error:
        message = str(error)
    else:
        message = ""
        for array in request.inputs.values():
            DataType.of(array)
        encode_response(InferenceResponse("m", 1, request.inputs, request.id, request.parameters))
    assert len(message) < 2000


@given(requests)
def test_any_message(message: ModelInferRequest) -> None:
    decodes_or_says_why(message.SerializeToString())


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    decodes_or_says_why(data)


@given(requests, st.integers(0), st.binary(min_size=1, max_size=3))
def test_broken_message(message: ModelInferRequest, place: int, noise: bytes) -> None:
    data = bytearray(message.SerializeToString())
    start = place % (len(data) + 1)
    data[start : start + len(noise)] = noise
    decodes_or_says_why(bytes(data))


@given(st.sampled_from(list(DataType)), st.lists(st.integers(0, 4), max_size=4), st.randoms(use_true_random=False))
def test_tensors_survive(datatype: DataType, shape: list[int], random: object) -> None:
    count = int(np.prod(shape, dtype=int))
    if datatype is DataType.BYTES:
        array = np.empty(count, np.object_)
        array[:] = [random.randbytes(random.randrange(6)) for _ in range(count)]  # type: ignore[attr-defined]
    else:
        array = np.array([random.randrange(2) for _ in range(count)]).astype(datatype.dtype)  # type: ignore[attr-defined]
    sent = encode_response(InferenceResponse("m", 1, {"x": array.reshape(shape)}))
    message = ModelInferRequest(
        inputs=[Tensor(name="x", datatype=sent.outputs[0].datatype, shape=sent.outputs[0].shape)],
        raw_input_contents=sent.raw_output_contents,
    )
    received = decode_request(message).inputs["x"]
    assert received.dtype == datatype.dtype
    np.testing.assert_array_equal(received, array.reshape(shape))
