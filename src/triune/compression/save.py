"""Write an ONNX model, one large weight at a time: into the model's file, or from 2 GiB on into a file beside it."""

from pathlib import Path

from onnx import ModelProto, TensorProto

from triune.core.errors import InvalidArgumentError
from triune.graph.weight_files import LARGE_BYTES, data_of, load_data, num_bytes, refer

_MOST_BYTES_INLINE = 2**31 - 2**20
"""The most bytes of a model whose weights are all in its own file. Protobuf's limit is 2 GiB."""


def save(model: ModelProto, path: Path) -> None:
    """Write a model. Weights that are in other files are copied; if the whole is larger than protobuf's limit of 2 GiB,
    the large ones go to a file of the same name with ".data" at the end.

    Args:
        model: changed: its weights refer to the written files, or are in it.
        path: the file to write, which is in a new folder.

    Raises:
        InvalidArgumentError: the disk is full, or the file cannot be written.
    """
    try:
        size = sum(num_bytes(each) for each in model.graph.initializer)
        if size > _MOST_BYTES_INLINE:
            _write_beside(model, path.with_name(f"{path.name}.data"))
        else:
            for tensor in model.graph.initializer:
                if tensor.data_location == TensorProto.EXTERNAL:
                    load_data(tensor)
        with path.open("wb") as file:
            file.write(model.SerializeToString())
    except OSError as error:
        raise InvalidArgumentError(
            f"'{path.name}' cannot be written: {error.strerror or error}; make room, or name another place"
        ) from error


def _write_beside(model: ModelProto, path: Path) -> None:
    offset = 0
    with path.open("wb") as file:
        for tensor in model.graph.initializer:
            if num_bytes(tensor) < LARGE_BYTES:
                continue
            is_external = tensor.data_location == TensorProto.EXTERNAL
            data = data_of(tensor).tobytes() if is_external else tensor.raw_data
            file.write(data)
            tensor.ClearField("raw_data")
            refer(tensor, path.name, offset, len(data))
            offset += len(data)
