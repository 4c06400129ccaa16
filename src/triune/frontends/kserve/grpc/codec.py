"""Convert ModelInferRequest to InferenceRequest, and InferenceResponse to ModelInferResponse."""

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.requests import InferenceRequest, InferenceResponse, RequestedOutput
from triune.frontends.kserve.grpc.contents import decode_contents
from triune.frontends.kserve.grpc.parameters import (
    EMPTY_FINAL_RESPONSE,
    RequestParameters,
    decode_parameter,
    decode_parameters,
    encode_parameter,
)
from triune.frontends.kserve.tensors import check_count, count_objects, decode_raw, encode_raw, num_elements
from triune.frontends.limits import MAX_VERSION_DIGITS, shortened
from triune.protos.grpc_service_pb2 import ModelInferRequest, ModelInferResponse

# The largest size of all outputs of a response together, in bytes. A protobuf message has at most 2**31 - 1 bytes, of
# which names and shapes need some.
MAX_RESPONSE_BYTES = 2**31 - 2**20

_DATATYPES = {datatype.value: datatype for datatype in DataType}
_NO_PARAMETERS = RequestParameters()


def parse_request(data: bytes) -> ModelInferRequest:
    """Parse a ModelInferRequest. Raises InvalidArgumentError if the bytes are not a valid message."""
    try:
        return ModelInferRequest.FromString(data)
    except DecodeError as error:
        raise InvalidArgumentError(
            f"the {len(data)} bytes received are not a valid ModelInferRequest: {error}"
        ) from error


def check_parameters(message: ModelInferRequest) -> None:
    """Raise PayloadTooLargeError if the request and its tensors together have too many parameters.

    It is not called for small messages, which have no room for so many parameters.
    """
    count = len(message.parameters)
    count += sum(len(each.parameters) for each in message.inputs)
    count += sum(len(each.parameters) for each in message.outputs)
    check_count(count, "parameters")


def parse_version(version: str) -> int | None:
    """Parse the model version of a request; None if it is empty.

    Raises:
        InvalidArgumentError: the version is not an integer.
        NotFoundError: the number is larger than any version can be.
    """
    if not version:
        return None
    if not (version.isascii() and version.isdigit()):
        raise InvalidArgumentError(f"model version '{version[:64]}' is not a version; give an integer or nothing")
    if len(version) > MAX_VERSION_DIGITS:
        raise NotFoundError(
            f"no model has version '{shortened(version)}'; ask the repository index for those there are"
        )
    return int(version)


def decode_request(message: ModelInferRequest, raw: Sequence[memoryview] | None = None) -> InferenceRequest:
    """Decode a ModelInferRequest.

    Args:
        message: the message.
        raw: the raw_input_contents, if they were separated from the message before it was parsed.

    Returns:
        a request whose arrays are views of the message's bytes.

    Raises:
        InvalidArgumentError: a name, datatype, shape, content or parameter is invalid for any model.
        UnsupportedError: a tensor is in shared memory.
    """
    # In upb, iterating over an empty map costs as much as decoding a tensor, so empty `parameters` are skipped.
    parameters = decode_parameters(message.parameters) if message.parameters else _NO_PARAMETERS
    return InferenceRequest(
        model=message.model_name,
        inputs=_decode_inputs(message, message.raw_input_contents if raw is None else raw),
        version=parse_version(message.model_version),
        outputs=tuple(_decode_output(output) for output in message.outputs),
        id=message.id,
        parameters=parameters.custom,
        priority=parameters.priority,
        timeout_us=parameters.timeout_us,
    )


def is_empty_final_wanted(message: ModelInferRequest) -> bool:
    """Whether the client wants an empty final response on a stream (`triton_enable_empty_final_response`)."""
    return message.parameters[EMPTY_FINAL_RESPONSE].bool_param if EMPTY_FINAL_RESPONSE in message.parameters else False


def _decode_inputs(message: ModelInferRequest, raw: Sequence[memoryview | bytes]) -> dict[str, Array]:
    tensors = message.inputs
    check_count(len(tensors), "inputs")
    check_count(len(message.outputs), "outputs")
    num_objects = 0
    if raw and len(raw) != len(tensors):
        raise InvalidArgumentError(
            f"the request has {len(tensors)} inputs but {len(raw)} raw_input_contents; send one for each, in order"
        )
    inputs: dict[str, Array] = {}
    for index, tensor in enumerate(tensors):
        name = tensor.name
        if name in inputs:
            raise InvalidArgumentError(f"input '{name}' already exists in request; send each input once")
        if tensor.parameters:
            _refuse_shared_memory("input", name, tensor.parameters)
        datatype = _DATATYPES.get(tensor.datatype) or DataType.parse(tensor.datatype[:64])
        shape = tuple(tensor.shape)
        has_contents = tensor.HasField("contents")
        if raw:
            if has_contents:
                raise InvalidArgumentError(
                    f"input '{name}' has contents, but the request has raw_input_contents; use one or the other"
                )
            inputs[name] = decode_raw(name, datatype, shape, raw[index], message.model_name)
        elif has_contents:
            inputs[name] = decode_contents(name, datatype, shape, tensor.contents)
        elif num_elements(name, shape) == 0:
            inputs[name] = decode_raw(name, datatype, shape, b"")
        else:
            raise InvalidArgumentError(
                f"input '{name}' has no data; send it in raw_input_contents or in the input's contents"
            )
        num_objects = count_objects(num_objects, inputs[name])
    return inputs


def _decode_output(output: ModelInferRequest.InferRequestedOutputTensor) -> RequestedOutput:
    if not output.parameters:
        return RequestedOutput(output.name)
    _refuse_shared_memory("output", output.name, output.parameters)
    if "classification" not in output.parameters:
        return RequestedOutput(output.name)
    value = decode_parameter("classification", output.parameters["classification"])
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidArgumentError(
            f"classification of output '{output.name}' is {str(value)[:64]}; send an int64_param of 1 or more, or of 0 "
            "for the tensor itself"
        )
    return RequestedOutput(output.name, value)


def _refuse_shared_memory(kind: str, name: str, parameters: object) -> None:
    if "shared_memory_region" in parameters:  # type: ignore[operator]
        raise UnsupportedError(
            f"{kind} '{name}' is in shared memory, which this server does not offer; send the tensor in the message"
        )


def encode_response(response: InferenceResponse) -> ModelInferResponse:
    """Encode a response, with its outputs in raw_output_contents.

    Raises:
        InvalidArgumentError: the outputs together are larger than a message can be (2 GiB).
        InternalError: the protocol cannot express an output or a parameter.
    """
    message = describe_response(response)
    num_bytes = 0
    for name, array in response.outputs.items():
        data = bytes(encode_raw(array))
        num_bytes += len(data)
        check_size(name, num_bytes)
        message.raw_output_contents.append(data)
    return message


def describe_response(response: InferenceResponse) -> ModelInferResponse:
    """Encode a response without raw_output_contents. Raises the errors of `encode_response`."""
    message = ModelInferResponse(model_name=response.model, model_version=str(response.version), id=response.id)
    for name, array in response.outputs.items():
        message.outputs.add(name=name, datatype=DataType.of(array).value, shape=array.shape)
    for name, value in response.parameters.items():
        message.parameters[name].CopyFrom(encode_parameter(name, value))
    return message


def check_size(name: str, num_bytes: int) -> None:
    """Raise InvalidArgumentError if the outputs, up to and including this one, are larger than a message can be."""
    if num_bytes > MAX_RESPONSE_BYTES:
        raise InvalidArgumentError(
            f"the outputs up to '{name}' take {num_bytes} bytes, more than the {MAX_RESPONSE_BYTES} of a gRPC "
            "message; ask for fewer outputs, send a smaller batch, or use HTTP"
        )
