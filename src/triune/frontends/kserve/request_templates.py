"""Requests that are told apart by their tensors' bytes only: their JSON is parsed once.

A client that sends binary data sends the same JSON again and again, but for the request's id, which Triton's clients
put first. Parsing and checking it costs more than all else that decoding does.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from triune.core.datatypes import Array, DataType
from triune.core.requests import InferenceRequest
from triune.frontends.kserve.http_codec import OutputForm, decode_request

_ID_START = b'{"id":"'
_MAX_TEMPLATES = 256
_MAX_TEMPLATE_BYTES = 4096

# BYTES and BOOL are looked at element by element.
_UNCHECKED_DTYPES = {each.dtype for each in DataType if each not in (DataType.BYTES, DataType.BOOL)}


@dataclass(frozen=True, slots=True)
class _Template:
    request: InferenceRequest
    form: OutputForm
    tensors: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...]
    data_bytes: int


class RequestTemplates:
    """Decodes as `decode_request` does, which it asks whenever it has not seen a request's JSON before."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Template] = {}

    def decode(
        self, model: str, version: int | None, body: bytes | bytearray, header_bytes: int
    ) -> tuple[InferenceRequest, OutputForm]:
        """As `decode_request`: same results, same errors."""
        request_id, key = _split(bytes(body[:header_bytes]))
        template = self._known.get(key)
        if template is None or len(body) - header_bytes != template.data_bytes:
            request, form = decode_request(model, version, body, header_bytes)
            if template is None:
                self._learn(key, request, form, len(body) - header_bytes)
            return request, form
        buffer = body if type(body) is bytes else memoryview(body).toreadonly()
        inputs: dict[str, Array] = {}
        offset = header_bytes
        for name, dtype, shape, num_bytes in template.tensors:
            inputs[name] = np.ndarray(shape, dtype, buffer, offset)
            offset += num_bytes
        like = template.request
        request = InferenceRequest(
            model, inputs, version, like.outputs, request_id, like.parameters, like.priority, like.timeout_us
        )
        return request, template.form

    def _learn(self, key: bytes, request: InferenceRequest, form: OutputForm, data_bytes: int) -> None:
        # Another id further on would win over the first; a tensor whose data are in the JSON is no template.
        if len(key) > _MAX_TEMPLATE_BYTES or b'"id"' in key or b'"data"' in key or b"\\" in key:
            return
        arrays = request.inputs.items()
        if any(array.dtype not in _UNCHECKED_DTYPES for _, array in arrays):
            return
        if len(self._known) >= _MAX_TEMPLATES:
            self._known.clear()
        tensors = tuple((name, array.dtype, array.shape, array.nbytes) for name, array in arrays)
        shared = InferenceRequest(
            "", {}, None, request.outputs, "", request.parameters, request.priority, request.timeout_us
        )
        self._known[key] = _Template(shared, form, tensors, data_bytes)


def _split(header: bytes) -> tuple[str, bytes]:
    """The id at the start of a request's JSON, and the rest; "" and everything if it does not start with a plain id."""
    if header.startswith(_ID_START):
        end = header.find(b'"', len(_ID_START))
        text = header[len(_ID_START) : end].decode("latin-1")
        if end > 0 and text.isascii() and text.isprintable() and "\\" not in text:
            return text, header[end:]
    return "", header
