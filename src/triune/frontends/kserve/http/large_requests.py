"""The functions that threads and processes run to decode and encode large requests."""

from collections.abc import Generator

import numpy as np
import orjson

from triune.core.datatypes import CHUNK_ELEMENTS, Array
from triune.core.errors import PayloadTooLargeError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.threads import pause
from triune.frontends.bodies.offload import freed_gradually
from triune.frontends.kserve.http.codec import OutputForm, decode_request, describe_output, describe_response
from triune.frontends.kserve.http.json_tensors import encode_json
from triune.frontends.kserve.large_tensors import pack, raw_pieces

MAX_JSON_VALUES = 16 << 20
"""The largest number of JSON values: each becomes a Python object of up to a hundred bytes while it is parsed."""

_SEPARATORS = np.zeros(256, np.bool_)
_SEPARATORS[list(b",[{")] = True
_COUNTED_BYTES = 128 << 10


def check_json(view: memoryview) -> None:
    """Refuse JSON that would take too much memory to parse.

    Raises:
        PayloadTooLargeError: it has more than 16 Mi values, judged by its commas and brackets.
    """
    array = np.frombuffer(view, np.uint8)
    num_values = 0
    for start in range(0, len(array), _COUNTED_BYTES):
        num_values += int(np.count_nonzero(_SEPARATORS[array[start : start + _COUNTED_BYTES]]))
    if num_values > MAX_JSON_VALUES:
        raise PayloadTooLargeError(
            f"the request's JSON has {num_values} commas and brackets; the server takes {MAX_JSON_VALUES}: send "
            "tensors as binary data, with 'binary_data_size'"
        )


def parse_infer(
    model: str, version: int | None, header_bytes: int | None, body: memoryview
) -> tuple[InferenceRequest, OutputForm]:
    """Call `decode_request` in a parser process; the caller must then call `unpack`.

    Raises the errors of `decode_request` and `check_json`.
    """
    check_json(body[:header_bytes])
    request, form = decode_request(model, version, body, header_bytes)
    pack(request)
    return request, form


def encode_large_response(
    response: InferenceResponse, form: OutputForm
) -> Generator[int, None, tuple[list[bytes | memoryview], int | None]]:
    """Encode a response as `codec.encode_response` does; a generator for `Offload.in_steps` that often releases
    the GIL.
    """
    head: list[bytes | memoryview] = []
    raw: list[bytes | memoryview] = []
    opening = orjson.dumps(describe_response(response))[:-1] + b',"outputs":['
    with freed_gradually(head, raw):
        for name, array in response.outputs.items():
            if form.by_name.get(name, form.is_binary):
                data = yield from raw_pieces(array)
                raw += filter(len, data)
                item = describe_output(name, array)
                item["parameters"] = {"binary_data_size": sum(map(len, data))}
                head.append(opening + orjson.dumps(item))
            else:
                head.append(opening + orjson.dumps(describe_output(name, array))[:-1] + b',"data":[')
                head += yield from json_pieces(name, array)
                head.append(b"]}")
            opening = b","
    if not head:
        head.append(opening)
    head.append(b"]}")
    if response.id:
        head[0] = b'{"id":%s,%s' % (orjson.dumps(response.id), bytes(head[0])[1:])
    return [*head, *raw], sum(map(len, head)) if raw else None


def json_pieces(name: str, array: Array) -> Generator[int, None, list[bytes]]:
    """Encode as `encode_json` does, in pieces and without the outer brackets; a generator for `Offload.in_steps`."""
    flat = array.ravel()
    texts: list[bytes] = []
    with freed_gradually(texts):
        for start in range(0, max(1, flat.size), CHUNK_ELEMENTS):
            if start:
                texts.append(b",")
                pause()
            texts.append(encode_json(name, flat[start : start + CHUNK_ELEMENTS])[1:-1])
            yield len(texts[-1])
    return texts
