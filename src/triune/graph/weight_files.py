"""Keep large weights in files until they are used, as ONNX external data whose location is a full path.

A protobuf message never frees the memory of its tensors, and is copied often. Therefore `triune.graph.load` leaves
large weights in their files, and passes write new large weights into a scratch file (`WeightFile`).
"""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from triune.core.errors import InvalidArgumentError
from triune.core.files import open_file

LARGE_BYTES = 1 << 16
"""Tensors of at least this many bytes stay in files."""

_PACKED = frozenset(
    helper.np_dtype_to_tensor_dtype(helper.tensor_dtype_to_np_dtype(kind))
    for kind in (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)
)
"""Element types with several elements in a byte."""


def array_of(tensor: TensorProto) -> NDArray[Any]:
    """The elements of a tensor. If it is external, each call reads them from the file into a new array.

    Raises:
        InvalidArgumentError: the file cannot be read, or `load` has not set its location.
    """
    if tensor.data_location != TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    if tensor.data_type in _PACKED:
        whole = TensorProto()
        whole.CopyFrom(tensor)
        load_data(whole)
        return numpy_helper.to_array(whole)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return data_of(tensor).view(dtype).reshape(tuple(tensor.dims))


def num_bytes(tensor: TensorProto) -> int:
    """The approximate number of bytes of a tensor's elements."""
    if tensor.data_location == TensorProto.EXTERNAL:
        length = _entries(tensor).get("length")
        return int(length) if length is not None else size_in_file(tensor) or 0
    return len(tensor.raw_data) or tensor.ByteSize()


def refer(tensor: TensorProto, path: PurePath | str, offset: int, length: int) -> None:
    """Make `tensor`, which must have no data, refer to data in a file. `offset` and `length` are in bytes."""
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", str(path)), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def load_data(tensor: TensorProto) -> None:
    """Read a tensor's data from its external file into `raw_data`.

    Raises:
        InvalidArgumentError: the file cannot be read.
    """
    tensor.raw_data = data_of(tensor).tobytes()
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def data_of(tensor: TensorProto) -> NDArray[np.uint8]:
    """The bytes of an external tensor.

    Raises:
        InvalidArgumentError: the file cannot be read, or `load` has not set its location.
    """
    entries = _entries(tensor)
    path = Path(entries["location"])
    if not path.is_absolute():
        raise InvalidArgumentError(
            f"the data of '{tensor.name}' are in the file '{path}', which was not loaded; load external data first"
        )
    length = int(entries["length"])
    try:
        with open_file(path) as file:
            data = np.fromfile(file, np.uint8, length, offset=int(entries["offset"]))
    except OSError as error:
        raise InvalidArgumentError(f"the data of '{tensor.name}' cannot be read from '{path}': {error}") from error
    if len(data) != length:
        raise InvalidArgumentError(
            f"'{path}' was cut short while it was converted: '{tensor.name}' has {len(data)} of its {length} bytes"
        )
    return data


def size_in_file(tensor: TensorProto) -> int | None:
    """The number of bytes of a tensor's elements in a file; None if several elements share a byte, or if they are
    strings.
    """
    if tensor.data_type in _PACKED or tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return None
    return math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def with_data(model: ModelProto) -> ModelProto:
    """Make a copy of a model that contains all its weights, as other libraries need it."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            load_data(tensor)
    return copy


class WeightFile:
    """A scratch file for large weights that a conversion creates. It is deleted at the end of the `with` block."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="triune-weights-")
        self._path = Path(self._folder.name) / "weights"
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def tensor(self, name: str, array: NDArray[Any]) -> TensorProto:
        """Create an initializer from an array; if it is large, its data are written to the file."""
        elem_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        if array.nbytes < LARGE_BYTES or elem_type in _PACKED or elem_type == TensorProto.STRING:
            return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        tensor = TensorProto(name=name, data_type=elem_type, dims=array.shape)
        self._append(tensor, np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        return tensor

    def moved(self, tensor: TensorProto) -> TensorProto:
        """A copy of a large tensor with its data in the scratch file; `tensor` itself if it is small or has no raw
        data.
        """
        if len(tensor.raw_data) < LARGE_BYTES:
            return tensor
        light = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        self._append(light, tensor.raw_data)
        return light

    def _append(self, tensor: TensorProto, data: Any) -> None:
        with self._path.open("ab") as file:
            file.write(data)
        refer(tensor, self._path, self._size, len(data))
        self._size += len(data)


def _entries(tensor: TensorProto) -> Mapping[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}
