"""A cache of decoded JSON of requests with binary tensors.

A client that sends binary tensors repeats the same JSON, except for the request's id, which Triton's clients put first.
Parsing and checking this JSON takes most of the time of decoding.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from triune.core.datatypes import Array, DataType
from triune.core.requests import CheckCache, InferenceRequest
from triune.frontends.bodies.compression import Body
from triune.frontends.kserve.http.codec import OutputForm, decode_request

# Matches an id at the beginning: printable ASCII without quotes and backslashes.
_ID = re.compile(rb'\{"id":"([ !#-\[\]-~]*)(?=")')
# Tensors up to this size are copied to aligned memory here. The runtime's adapter copies larger ones if it must.
_COPY_BYTES = 16384
_MAX_TEMPLATES = 256
_MAX_TEMPLATE_BYTES = 4096

# The dtypes of all tensors except BYTES and BOOL, whose elements must be checked.
_UNCHECKED_DTYPES = {each.dtype for each in DataType if each not in (DataType.BYTES, DataType.BOOL)}


@dataclass(frozen=True, slots=True)
class _Template:
    request: InferenceRequest
    form: OutputForm
    tensors: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...]
    data_bytes: int
    check_cache: CheckCache


class RequestTemplates:
    """Decodes requests as `decode_request` does, which it calls only for JSON that is not in the cache."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int | None, bytes], _Template] = {}

    def decode(
        self, model: str, version: int | None, body: Body, header_bytes: int
    ) -> tuple[InferenceRequest, OutputForm]:
        """Decode a request; results and errors are those of `decode_request`."""
        is_bytes = type(body) is bytes
        header = body[:header_bytes] if is_bytes else bytes(body[:header_bytes])
        match = _ID.match(header)
        key = (model, version, header[match.end() :] if match else header)
        template = self._known.get(key)
        if template is None or len(body) - header_bytes != template.data_bytes:
            request, form = decode_request(model, version, body, header_bytes)
            if template is None:
                self._learn(key, request, form, len(body) - header_bytes)
            return request, form
        offset = header_bytes
        if template.data_bytes <= _COPY_BYTES:
            data, offset = body[header_bytes:], 0
            buffer = data if is_bytes else bytes(data)
        else:
            buffer = body if is_bytes else memoryview(body).toreadonly()
        inputs: dict[str, Array] = {}
        for name, dtype, shape, num_bytes in template.tensors:
            inputs[name] = np.ndarray(shape, dtype, buffer, offset)
            offset += num_bytes
        like = template.request
        request = InferenceRequest(
            model,
            inputs,
            version,
            like.outputs,
            match[1].decode("ascii") if match else "",
            like.parameters,
            like.priority,
            like.timeout_us,
            template.check_cache,
        )
        return request, template.form

    def _learn(
        self, key: tuple[str, int | None, bytes], request: InferenceRequest, form: OutputForm, data_bytes: int
    ) -> None:
        header = key[2]
        # Do not cache JSON with a second id, which would override the first, or with tensor data in it.
        if len(header) > _MAX_TEMPLATE_BYTES or b'"id"' in header or b'"data"' in header or b"\\" in header:
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
        form.answers = {}
        self._known[key] = _Template(shared, form, tensors, data_bytes, CheckCache())
