"""Write a model, whose large weights are in other files, to one file; to two files if it exceeds 2 GiB."""

import shutil
from pathlib import Path
from typing import BinaryIO

from onnx import ModelProto, TensorProto

from triune.core.errors import InvalidArgumentError
from triune.graph.weight_files import data_of, num_bytes, refer, with_data

MOST_INLINE_BYTES = 2**31 - 2**24
"""The largest size of a model in one file: protobuf's limit is 2 GiB, less some room for the nodes. Larger weights go
into a second file.
"""

_ALIGNMENT_BYTES = 64
"""The weights begin at multiples of this, so that runtimes may map them."""


def save(model: ModelProto, path: Path, most_inline_bytes: int = MOST_INLINE_BYTES) -> bool:
    """Write a model.

    Args:
        model: not changed. Its large weights may be external data in other files (`weight_files`).
        path: the file; weights beyond `most_inline_bytes` go to a file of this name with ".data" at its end.
        most_inline_bytes: the largest number of bytes of weights and nodes in the file itself.

    Returns:
        whether the weights are in a file beside it.

    Raises:
        InvalidArgumentError: the disk is full, or the file cannot be written for another reason.
    """
    size = model.ByteSize() + sum(
        num_bytes(tensor) for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL
    )
    is_beside = size > most_inline_bytes
    try:
        if is_beside:
            _save_beside(model, path)
        else:
            path.write_bytes(with_data(model).SerializeToString())
    except OSError as error:
        free = shutil.disk_usage(path.parent).free
        raise InvalidArgumentError(
            f"cannot write '{path.name}', which takes {size} bytes: {error.strerror or error} ({free} bytes are free); "
            "make room, or name another place"
        ) from error
    return is_beside


def _save_beside(model: ModelProto, path: Path) -> None:
    light = ModelProto()
    light.CopyFrom(model)
    beside = path.with_name(f"{path.name}.data")
    with beside.open("wb") as file:
        for tensor in light.graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                data = data_of(tensor)
                offset = _aligned(file)
                data.tofile(file)
                refer(tensor, beside.name, offset, len(data))
    path.write_bytes(light.SerializeToString())


def _aligned(file: BinaryIO) -> int:
    """Pad a file with zeros up to the alignment; returns its size."""
    size = file.tell()
    missing = -size % _ALIGNMENT_BYTES
    file.write(bytes(missing))
    return size + missing
