"""Requests that are told apart by their tensors' bytes only: their JSON is parsed once.

A client that sends binary data sends the same JSON again and again, but for the request's id, which Triton's clients
put first. Parsing and checking it costs more than all else that decoding does.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from triune.core.datatypes import Array, DataType
from triune.core.requests import CheckCache, InferenceRequest
from triune.frontends.kserve.compression import Body
from triune.frontends.kserve.http.codec import OutputForm, decode_request

# A plain id in front: printable ASCII without quotes and backslashes.
_ID = re.compile(rb'\{"id":"([ !#-\[\]-~]*)(?=")')
# Below this size the tensors are copied to where C++ may read them; further up the runtime's adapter does if it must.
_COPY_BYTES = 16384
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
    check_cache: CheckCache


class RequestTemplates:
    """Decodes as `decode_request` does, which it asks whenever it has not seen a request's JSON before."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int | None, bytes], _Template] = {}

    def decode(
        self, model: str, version: int | None, body: Body, header_bytes: int
    ) -> tuple[InferenceRequest, OutputForm]:
        """As `decode_request`: same results, same errors."""
        header = bytes(body[:header_bytes])
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
            buffer, offset = bytes(body[header_bytes:]), 0
        else:
            buffer = body if type(body) is bytes else memoryview(body).toreadonly()
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
        # Another id further on would win over the first; a tensor whose data are in the JSON is no template.
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
