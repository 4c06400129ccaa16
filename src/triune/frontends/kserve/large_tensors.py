"""Tensors of large requests: passing them between processes, computing their size, and encoding them in pieces."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from triune.core.datatypes import CHUNK_ELEMENTS, Array, DataType
from triune.core.requests import InferenceRequest
from triune.core.sizes import array_bytes, content_bytes
from triune.core.threads import pause
from triune.frontends.bodies.offload import SMALL_BYTES, freed_gradually
from triune.frontends.kserve.tensors import as_bytes, decode_raw, encode_raw


@dataclass(frozen=True, slots=True)
class Packed:
    """A BYTES tensor in its binary form, in which it can be passed between processes."""

    shape: tuple[int, ...]
    data: Array


def pack(request: InferenceRequest) -> None:
    """Replace the request's BYTES tensors by `Packed` ones, so that the request can be pickled cheaply."""
    inputs = cast("dict[str, Any]", request.inputs)
    for name, array in request.inputs.items():
        if array.dtype.char == "O":
            inputs[name] = Packed(array.shape, np.frombuffer(encode_raw(array), np.uint8))


def unpack(request: InferenceRequest) -> None:
    """Undo `pack`. Call it in a thread, since it makes an object for each BYTES element."""
    inputs = request.inputs
    for name, value in cast("dict[str, Any]", inputs).items():
        if isinstance(value, Packed):
            inputs[name] = decode_raw(name, DataType.BYTES, value.shape, value.data.data)
        else:
            cast(Array, value).flags.writeable = False


def memory_bytes(tensors: Mapping[str, Array]) -> int:
    """The memory of tensors in bytes, without the contents of BYTES elements: adding those up takes too long."""
    return sum(map(array_bytes, tensors.values()))


def encoded_bytes(tensors: Mapping[str, Array]) -> int:
    """The size of tensors in binary form. To save time, each element of a BYTES tensor larger than SMALL_BYTES counts
    as 8 bytes.
    """
    num_bytes = 0
    for array in tensors.values():
        num_bytes += array.nbytes
        if array.dtype.hasobject and array.nbytes <= SMALL_BYTES:
            num_bytes += content_bytes(array)
    return num_bytes


def raw_pieces(array: Array) -> Generator[int, None, list[bytes | memoryview]]:
    """Encode as `encode_raw` does; a generator for `Offload.in_steps`."""
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
    """Convert the files of a load request from arrays to bytes. Call it in a thread."""
    return {name: as_bytes(array.data) for name, array in arrays.items()}
