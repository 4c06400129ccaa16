"""Tensors of large requests: on their way between processes, counted, and encoded piece by piece."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from triune.core.datatypes import CHUNK_ELEMENTS, Array, DataType
from triune.core.requests import InferenceRequest
from triune.frontends.kserve.offload import freed_gradually, pause
from triune.frontends.kserve.tensors import as_bytes, decode_raw, encode_raw


@dataclass(frozen=True, slots=True)
class Packed:
    """A BYTES tensor on its way between processes, as it is on the wire: its objects are made where it arrives."""

    shape: tuple[int, ...]
    data: Array


def pack(request: InferenceRequest) -> None:
    """Make the request's BYTES tensors fit to cross to another process."""
    inputs = cast("dict[str, Any]", request.inputs)
    for name, array in request.inputs.items():
        if array.dtype.char == "O":
            inputs[name] = Packed(array.shape, np.frombuffer(encode_raw(array), np.uint8))


def unpack(request: InferenceRequest) -> None:
    """Undo `pack`, in a thread."""
    inputs = request.inputs
    for name, value in cast("dict[str, Any]", inputs).items():
        if isinstance(value, Packed):
            inputs[name] = decode_raw(name, DataType.BYTES, value.shape, value.data.data)
        else:
            cast(Array, value).flags.writeable = False


def inputs_bytes(inputs: Mapping[str, Array]) -> int:
    """What arrays take in memory, the objects of BYTES included."""
    return sum(
        array.nbytes + (array.size * BYTES_ELEMENT_BYTES if array.dtype.char == "O" else 0) for array in inputs.values()
    )


BYTES_ELEMENT_BYTES = 96
"""What an element of BYTES takes beside its content: here an object, in the runtime a string."""


def raw_pieces(array: Array) -> Generator[int, None, list[bytes | memoryview]]:
    """`encode_raw`, in pieces, for `offload.in_steps`."""
    if array.dtype.char != "O":
        if not array.flags.c_contiguous:
            yield array.nbytes
        return [encode_raw(np.ascontiguousarray(array))]
    flat = array.ravel()
    texts: list[bytes | memoryview] = []
    with freed_gradually(texts):
        for start in range(0, flat.size, CHUNK_ELEMENTS):
            if start:
                pause()
            texts.append(encode_raw(flat[start : start + CHUNK_ELEMENTS]))
            yield len(texts[-1])
    return texts


def files_of(arrays: dict[str, Array]) -> dict[str, bytes]:
    """The files as bytes: called in a thread."""
    return {name: as_bytes(array.data) for name, array in arrays.items()}
