"""Inferences over gRPC that are too large for the event loop, between bytes and values.

protobuf parses and writes messages without letting any other thread run, and copies each tensor twice. The tensors of
large messages are therefore cut out, and put in, beside it: they are fields of a message's top level.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from io import BytesIO
from typing import ParamSpec, TypeVar

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, PayloadTooLargeError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.frontends.kserve import compression
from triune.frontends.kserve.budget import Reservation
from triune.frontends.kserve.decoder import STRINGS_FACTOR, Decoder
from triune.frontends.kserve.grpc import codec as grpc_codec
from triune.frontends.kserve.grpc import messages as grpc_messages
from triune.frontends.kserve.grpc.messages import varint
from triune.frontends.kserve.grpc.parameters import FINAL_RESPONSE
from triune.frontends.kserve.large_tensors import files_of, inputs_bytes, pack, raw_pieces, unpack
from triune.frontends.kserve.offload import SMALL_BYTES, Offload
from triune.frontends.kserve.tensors import MAX_TENSORS, as_bytes
from triune.protos.grpc_service_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from triune.serving.server import Server

P = ParamSpec("P")
T = TypeVar("T")

# Inputs, outputs, raw contents, parameters and names: no request has more fields than that.
_MAX_FIELDS = 4 * MAX_TENSORS

# The descriptions of 4096 tensors take a quarter of that.
_MAX_HEAD_BYTES = 1 << 20

# So many tensors are decoded, and so many fields told apart, at once, where they are.
_MANY_TENSORS = 64

# Tags of fields: the number, and 2 for what carries its length.
_MODEL_NAME = ModelInferRequest.DESCRIPTOR.fields_by_name["model_name"].number << 3 | 2
_MODEL_VERSION = ModelInferRequest.DESCRIPTOR.fields_by_name["model_version"].number << 3 | 2
_RAW_INPUT = ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number << 3 | 2
_RAW_OUTPUT = ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number << 3 | 2
_INFER_RESPONSE = ModelStreamInferResponse.DESCRIPTOR.fields_by_name["infer_response"].number << 3 | 2
_VARINT, _COUNTED = 0, 2
_FIXED = {1: 8, 5: 4}
_LOOKED_AT = ("BYTES", "BOOL")


def decode_small(message: ModelInferRequest, server: Server) -> InferenceRequest:
    """`grpc_codec.decode_request`; an unknown model is told before what is wrong with the inputs, as in Triton."""
    try:
        return grpc_codec.decode_request(message)
    except InvalidArgumentError:
        server.model(message.model_name, grpc_codec.parse_version(message.model_version))
        raise


class LargeMessages:
    """Decodes and encodes large messages in threads and processes."""

    def __init__(self, server: Server, decoder: Decoder, offload: Offload) -> None:
        """Args:
        server: has the models that messages name.
        decoder: where typed contents are parsed.
        offload: where the rest is done.
        """
        self._server = server
        self._decoder = decoder
        self._offload = offload

    async def decode(self, data: bytes, held: Reservation) -> tuple[ModelInferRequest, InferenceRequest]:
        """As `grpc_codec.parse_request` and `decode_request`.

        Args:
            data: the message.
            held: has reserved the message's size; then what the request takes.

        Returns:
            the message, perhaps without its tensors, and the request.
        """
        parts = split_request(data, _MANY_TENSORS) or await self._offload.run(split_all, data)
        head, raw = parts.head, parts.raw
        # An unknown model is told before what is wrong with the inputs, as in Triton.
        self._server.model(parts.model, grpc_codec.parse_version(parts.version))
        if raw:
            check_head(len(head))
            parse = self._offload.run if len(head) > SMALL_BYTES else _at_once
            message = await parse(grpc_codec.parse_request, head)
            grpc_codec.check_parameters(message)
            is_looked_at = any(tensor.datatype in _LOOKED_AT for tensor in message.inputs)
            run = self._offload.run if is_looked_at or len(message.inputs) > _MANY_TENSORS else _at_once
            request = await run(grpc_codec.decode_request, message, raw)
        else:
            self._decoder.check_size(len(head), "typed contents: send raw_input_contents")
            rest, request = await self._decoder.parse(parse_typed, head, len(head), held)
            message = grpc_codec.parse_request(rest)
            await self._offload.run(unpack, request)
        held.resize(max(len(data), inputs_bytes(request.inputs)))
        return message, request

    async def parse_load(self, data: bytes, held: Reservation) -> tuple[str, str, str | None, dict[str, Array]]:
        """As `grpc_messages.parse_load`."""
        if len(data) <= SMALL_BYTES:
            return grpc_messages.parse_load(memoryview(data))
        return await self._decoder.parse(grpc_messages.parse_load, data, len(data), held, factor=STRINGS_FACTOR)

    async def files_of(self, arrays: dict[str, Array]) -> dict[str, bytes]:
        """Files as bytes."""
        return await self._offload.run(files_of, arrays) if arrays else {}

    async def encode(self, response: InferenceResponse, held: Reservation, *, is_final: bool | None = None) -> bytes:
        """The message of an answer: a ModelInferResponse; if `is_final` is given, the ModelStreamInferResponse with it.

        Args:
            response: the answer.
            held: takes what the outputs, their message and the copies between take.
            is_final: see above.

        Raises:
            InvalidArgumentError: the outputs together are more than a message can hold.
            UnavailableError, PayloadTooLargeError: the memory budget is spent.
            InternalError: an output or a parameter that the protocol cannot express.
        """
        if outputs_bytes(response) <= SMALL_BYTES:
            message = grpc_codec.encode_response(response)
            if is_final is None:
                return message.SerializeToString()
            message.parameters[FINAL_RESPONSE].bool_param = is_final
            return ModelStreamInferResponse(infer_response=message).SerializeToString()
        held.resize(inputs_bytes(response.outputs))
        message = await self._offload.in_steps(join_response(response, is_final), held)
        # gRPC keeps it until the client has it.
        held.resize(len(message))
        return message


async def _at_once(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return work(*args, **kwargs)


def parse_typed(data: memoryview) -> tuple[bytes, InferenceRequest]:
    """A message, its tensors taken out, and its request, fit to cross to another process."""
    message = grpc_codec.parse_request(as_bytes(data))
    grpc_codec.check_parameters(message)
    request = grpc_codec.decode_request(message)
    pack(request)
    del message.inputs[:], message.outputs[:]
    rest = message.SerializeToString()
    check_head(len(rest))
    return rest, request


def check_head(num_bytes: int) -> None:
    """Raises PayloadTooLargeError if a message has too many bytes beside its tensors."""
    if num_bytes > _MAX_HEAD_BYTES:
        raise PayloadTooLargeError(
            f"the request has {num_bytes} bytes beside its tensors' contents; {_MAX_HEAD_BYTES} are the limit"
        )


def outputs_bytes(response: InferenceResponse) -> int:
    """The size of an answer's tensors, as far as it is known at once: of many BYTES, that of their references."""
    num_bytes = 0
    for array in response.outputs.values():
        num_bytes += array.nbytes
        if array.dtype.hasobject and array.nbytes <= SMALL_BYTES:
            num_bytes += sum(len(element) for element in array.ravel().tolist() if isinstance(element, bytes))
    return num_bytes


def join_response(response: InferenceResponse, is_final: bool | None) -> Generator[int, None, bytes]:
    """As `LargeMessages.encode`, for `offload.in_steps`."""
    message = grpc_codec.describe_response(response)
    if is_final is not None:
        message.parameters[FINAL_RESPONSE].bool_param = is_final
    parts: list[bytes | memoryview] = [message.SerializeToString()]
    num_bytes = 0
    for name, array in response.outputs.items():
        pieces = yield from raw_pieces(array)
        size = sum(map(len, pieces))
        num_bytes += size
        grpc_codec.check_size(name, num_bytes)
        parts.append(_RAW_OUTPUT.to_bytes() + varint(size))
        parts += pieces
    if is_final is not None:
        parts.insert(0, _INFER_RESPONSE.to_bytes() + varint(sum(map(len, parts))))
    joined = BytesIO()
    # A copy holds the GIL: of so little for no longer than others can wait.
    for part in compression.pieces(parts):
        yield joined.write(part)
    return joined.getvalue()


@dataclass(frozen=True, slots=True)
class Parts:
    """What a ModelInferRequest's bytes tell without being parsed.

    Attributes:
        head: the message without its raw_input_contents.
        raw: those, as views of the bytes.
        model: the model's name.
        version: its version, as it came; empty if it names none.
    """

    head: bytes
    raw: list[memoryview]
    model: str
    version: str


def split_all(data: bytes) -> Parts:
    """`split_request` of a message with many fields, in a thread."""
    parts = split_request(data, _MAX_FIELDS)
    if parts is None:
        raise PayloadTooLargeError(f"the request has more than {_MAX_FIELDS} fields, the server's limit")
    return parts


def split_request(data: bytes, max_fields: int) -> Parts | None:
    """Take a ModelInferRequest apart; None if it has more than `max_fields` fields, a microsecond each.

    Source: protobuf's encoding. A field is its tag (number and wire type) as a varint, then what it holds.

    Raises:
        InvalidArgumentError: the bytes are no message.
        PayloadTooLargeError: it has more inputs, or more of anything else, than the server takes tensors.
    """
    view = memoryview(data)
    kept: list[memoryview] = []
    raw: list[memoryview] = []
    names = {_MODEL_NAME: "", _MODEL_VERSION: ""}
    counts: dict[int, int] = {}
    position = start = num_fields = 0
    while position < len(data):
        field = position
        tag, position = _read_varint(data, position)
        kind = tag & 7
        if kind == _COUNTED:
            size, position = _read_varint(data, position)
            end = position + size
        elif kind == _VARINT:
            _, end = _read_varint(data, position)
        elif kind in _FIXED:
            end = position + _FIXED[kind]
        else:
            raise _no_message(data)
        if end > len(data):
            raise _no_message(data)
        if tag == _RAW_INPUT:
            kept.append(view[start:field])
            raw.append(view[position:end])
            start = end
        elif tag in names:
            names[tag] = str(view[position:end], errors="replace")
        position = end
        num_fields += 1
        if num_fields > max_fields:
            return None
        counts[tag] = count = counts.get(tag, 0) + 1
        if count > MAX_TENSORS:
            raise PayloadTooLargeError(
                f"the request has more than {MAX_TENSORS} inputs, outputs, contents or parameters"
            )
    return Parts(b"".join([*kept, view[start:]]), raw, names[_MODEL_NAME], names[_MODEL_VERSION])


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _no_message(data)


def _no_message(data: bytes) -> InvalidArgumentError:
    return InvalidArgumentError(f"the {len(data)} bytes received are no ModelInferRequest: a field of it is broken")
