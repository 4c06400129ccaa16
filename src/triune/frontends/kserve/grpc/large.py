"""Decode and encode gRPC messages that are too large for the event loop.

protobuf holds the GIL while it parses or writes a message, and copies each tensor twice. Tensors are fields of the
message itself, not of messages in it, so that this module cuts them out before protobuf parses the remaining message,
and appends them to the message that protobuf wrote.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from io import BytesIO
from typing import ParamSpec, TypeVar

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, PayloadTooLargeError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.frontends.bodies import compression
from triune.frontends.bodies.budget import Reservation
from triune.frontends.bodies.decoder import STRINGS_FACTOR, Decoder
from triune.frontends.bodies.offload import SMALL_BYTES, Offload
from triune.frontends.kserve.grpc import codec as grpc_codec
from triune.frontends.kserve.grpc import messages as grpc_messages
from triune.frontends.kserve.grpc.messages import varint
from triune.frontends.kserve.grpc.parameters import FINAL_RESPONSE
from triune.frontends.kserve.large_tensors import encoded_bytes, files_of, memory_bytes, pack, raw_pieces, unpack
from triune.frontends.kserve.tensors import MAX_TENSORS, as_bytes
from triune.protos.grpc_service_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from triune.serving.server import Server

P = ParamSpec("P")
T = TypeVar("T")

# The largest number of top-level fields of a ModelInferRequest: inputs, outputs, raw contents, parameters and names.
_MAX_FIELDS = 4 * MAX_TENSORS

# The largest message, in bytes, without its tensors. The descriptions of 4096 tensors take a quarter of that.
_MAX_HEAD_BYTES = 1 << 20

# If there are at least this many tensors, they are decoded, and the message's fields are separated, off the event loop.
_MANY_TENSORS = 64

# The tags of fields, each made of the field's number and wire type 2 (length-delimited).
_MODEL_NAME = ModelInferRequest.DESCRIPTOR.fields_by_name["model_name"].number << 3 | 2
_MODEL_VERSION = ModelInferRequest.DESCRIPTOR.fields_by_name["model_version"].number << 3 | 2
_RAW_INPUT = ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number << 3 | 2
_RAW_OUTPUT = ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number << 3 | 2
_INFER_RESPONSE = ModelStreamInferResponse.DESCRIPTOR.fields_by_name["infer_response"].number << 3 | 2
_VARINT, _COUNTED = 0, 2
_FIXED = {1: 8, 5: 4}
_LOOKED_AT = ("BYTES", "BOOL")


def decode_small(message: ModelInferRequest, server: Server) -> InferenceRequest:
    """Decode a message as `codec.decode_request` does. If the message is invalid and its model is unknown, the error of
    the model is raised, as in Triton.
    """
    try:
        return grpc_codec.decode_request(message)
    except InvalidArgumentError:
        server.model(message.model_name, grpc_codec.parse_version(message.model_version))
        raise


class LargeMessages:
    """Decodes and encodes large messages in threads and processes."""

    def __init__(self, server: Server, decoder: Decoder, offload: Offload) -> None:
        """Args:
        server: the server with the models.
        decoder: parses typed contents.
        offload: the threads and processes for all other work on messages.
        """
        self._server = server
        self._decoder = decoder
        self._offload = offload

    async def decode(self, data: bytes, held: Reservation) -> tuple[ModelInferRequest, InferenceRequest]:
        """Parse and decode a request, as `codec.parse_request` and `decode_request` do.

        Args:
            data: the message's bytes.
            held: the request's reservation of memory. It has the message's size, and is changed to the size of the
                message or of the decoded inputs, whichever is larger.

        Returns:
            the message, which may lack its tensors, and the request.
        """
        parts = split_request(data, _MANY_TENSORS) or await self._offload.run(split_all, data)
        head, raw = parts.head, parts.raw
        # Report an unknown model before an error in the inputs, as Triton does.
        self._server.model(parts.model, grpc_codec.parse_version(parts.version))
        if raw:
            check_head(len(head))
            parse = self._offload.run if len(head) > SMALL_BYTES else _at_once
            message = await parse(grpc_codec.parse_request, head)
            grpc_codec.check_parameters(message)
            is_looked_at = any(tensor.datatype in _LOOKED_AT for tensor in message.inputs)
            if is_looked_at or len(message.inputs) > _MANY_TENSORS:
                request = await self._offload.run_sized(len(data), grpc_codec.decode_request, message, raw)
            else:
                request = grpc_codec.decode_request(message, raw)
        else:
            self._decoder.check_size(len(head), "typed contents: send raw_input_contents")
            rest, request = await self._decoder.parse(parse_typed, head, len(head), held)
            message = grpc_codec.parse_request(rest)
            await self._offload.run_sized(len(data), unpack, request)
        held.resize(max(len(data), memory_bytes(request.inputs)))
        return message, request

    async def parse_load(self, data: bytes, held: Reservation) -> tuple[str, str, str | None, dict[str, Array]]:
        """Parse a load request as `messages.parse_load` does; if the message is large, in a process."""
        if len(data) <= SMALL_BYTES:
            return grpc_messages.parse_load(memoryview(data))
        return await self._decoder.parse(grpc_messages.parse_load, data, len(data), held, factor=STRINGS_FACTOR)

    async def files_of(self, arrays: dict[str, Array]) -> dict[str, bytes]:
        """Convert the files of a load request to bytes, in a thread."""
        return await self._offload.run_sized(memory_bytes(arrays), files_of, arrays) if arrays else {}

    async def encode(self, response: InferenceResponse, held: Reservation, *, is_final: bool | None = None) -> bytes:
        """Encode a response as ModelInferResponse or, for a stream, as ModelStreamInferResponse.

        Args:
            response: the response.
            held: the request's reservation of memory; it is changed to the size of the outputs, the message and the
                copies between them.
            is_final: for a stream: whether this is the request's last response. None: not a stream.

        Raises:
            InvalidArgumentError: the outputs together are larger than a message can be (2 GiB).
            UnavailableError, PayloadTooLargeError: the memory budget is exceeded.
            InternalError: the protocol cannot express an output or a parameter.
        """
        if encoded_bytes(response.outputs) <= SMALL_BYTES:
            message = grpc_codec.encode_response(response)
            if is_final is None:
                return message.SerializeToString()
            message.parameters[FINAL_RESPONSE].bool_param = is_final
            return ModelStreamInferResponse(infer_response=message).SerializeToString()
        held.resize(memory_bytes(response.outputs))
        message = await self._offload.in_steps(join_response(response, is_final), held)
        # Reserve memory for two messages: gRPC keeps the message and a copy of it until the client has read it.
        held.resize(2 * len(message))
        return message


async def _at_once(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return work(*args, **kwargs)


def parse_typed(data: memoryview) -> tuple[bytes, InferenceRequest]:
    """Parse and decode a message with typed contents. Runs in a parser process.

    Returns:
        the message without its tensors, and the request with its BYTES tensors packed.
    """
    message = grpc_codec.parse_request(as_bytes(data))
    grpc_codec.check_parameters(message)
    request = grpc_codec.decode_request(message)
    pack(request)
    del message.inputs[:], message.outputs[:]
    rest = message.SerializeToString()
    check_head(len(rest))
    return rest, request


def check_head(num_bytes: int) -> None:
    """Raise PayloadTooLargeError if a message has too many bytes in addition to its tensors."""
    if num_bytes > _MAX_HEAD_BYTES:
        raise PayloadTooLargeError(
            f"the request has {num_bytes} bytes beside its tensors' contents; {_MAX_HEAD_BYTES} are the limit"
        )


def join_response(response: InferenceResponse, is_final: bool | None) -> Generator[int, None, bytes]:
    """Encode a response as `LargeMessages.encode` does; a generator for `Offload.in_steps`."""
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
    # Copying holds the GIL: copy pieces of 256 KiB, with pauses between.
    for part in compression.pieces(parts):
        yield joined.write(part)
    return joined.getvalue()


@dataclass(frozen=True, slots=True)
class Parts:
    """A ModelInferRequest, split without protobuf.

    Attributes:
        head: the message without its raw_input_contents.
        raw: the raw_input_contents, as views of the bytes of the message.
        model: the name of the model.
        version: the version as a string; empty if the request names none.
    """

    head: bytes
    raw: list[memoryview]
    model: str
    version: str


def split_all(data: bytes) -> Parts:
    """Call `split_request` without a limit for fields. Runs in a thread."""
    parts = split_request(data, _MAX_FIELDS)
    if parts is None:
        raise PayloadTooLargeError(f"the request has more than {_MAX_FIELDS} fields, the server's limit")
    return parts


def split_request(data: bytes, max_fields: int) -> Parts | None:
    """Split a ModelInferRequest into its raw_input_contents and a message without them.

    Source: protobuf's wire format. A field is a tag (field number and wire type) as a varint, followed by its value.

    Args:
        data: the bytes of the message.
        max_fields: the largest number of fields to read; each takes about 1 us.

    Returns:
        the parts; None if there are more fields.

    Raises:
        InvalidArgumentError: the bytes are not a valid message.
        PayloadTooLargeError: there are more inputs, outputs or other fields than the server's limit on tensors.
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
    return InvalidArgumentError(
        f"the {len(data)} bytes received are not a valid ModelInferRequest: a field of it is broken"
    )
