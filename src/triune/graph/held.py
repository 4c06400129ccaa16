"""A model in memory with its large weights as separate arrays.

A protobuf message has at most 2 GiB, and copies what is put into it. The weights of a transformer are larger, and have
already been read or mapped into memory. So the model refers to them as external data.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from triune.core.errors import UnsupportedError
from triune.graph.weight_files import array_of, refer

HELD = "held in memory"
"""The location of external data that are in `HeldModel.weights`."""

_MOST_BYTES = 2**31 - 1


@dataclass(frozen=True)
class HeldModel:
    """A model, and its large weights.

    Attributes:
        model: the model, with the large initializers as external data at the location HELD.
        weights: the bytes of these initializers, by name, as contiguous arrays of UINT8.
    """

    model: ModelProto
    weights: Mapping[str, NDArray[np.uint8]]

    @property
    def weight_bytes(self) -> int:
        """The size of `weights` in bytes."""
        return sum(each.nbytes for each in self.weights.values())

    def array(self, tensor: TensorProto) -> NDArray[Any]:
        """The elements of an initializer; those of 4 bits as INT8 or UINT8. Large ones are not copied otherwise."""
        if tensor.name not in self.weights:
            return array_of(tensor)
        data, shape = self.weights[tensor.name], tuple(tensor.dims)
        if tensor.data_type not in (TensorProto.INT4, TensorProto.UINT4):
            return data.view(helper.tensor_dtype_to_np_dtype(tensor.data_type)).reshape(shape)
        codes = np.stack([data & 15, data >> 4], axis=-1).reshape(-1)[: math.prod(shape)].reshape(shape)
        # Two's complement of 4 bits: 8 to 15 are -8 to -1.
        return codes if tensor.data_type == TensorProto.UINT4 else ((codes ^ 8).astype(np.int8) - 8)

    def whole(self) -> ModelProto:
        """Make a copy of the model that contains its weights.

        Raises:
            UnsupportedError: the weights are larger than a protobuf message can be.
        """
        if self.weight_bytes > _MOST_BYTES:
            raise UnsupportedError(
                f"the weights take {self.weight_bytes} bytes, and an ONNX model in one piece at most {_MOST_BYTES}: "
                "save it with its weights in a file beside it"
            )
        copy = self._copy()
        for tensor in copy.graph.initializer:
            if tensor.name in self.weights:
                tensor.ClearField("data_location")
                tensor.ClearField("external_data")
                tensor.raw_data = self.weights[tensor.name].tobytes()
        return copy

    def referring(self, location: str) -> ModelProto:
        """Make a copy of the model whose external data have `location` and, as offsets, addresses in this process.

        `location` is one by which the reader knows that offsets are addresses. They are valid as long as this object
        lives.
        """
        copy = self._copy()
        for tensor in copy.graph.initializer:
            if tensor.name in self.weights:
                refer(tensor, location, self.weights[tensor.name].ctypes.data, self.weights[tensor.name].nbytes)
        return copy

    def save(self, path: Path) -> None:
        """Write an ONNX file, and its large weights to a second file, named as the first with `.data` appended.

        Raises:
            OSError: a file cannot be written.
        """
        copy, data_path = self._copy(), path.with_name(f"{path.name}.data")
        if self.weights:
            with data_path.open("wb") as file:
                for tensor in copy.graph.initializer:
                    if tensor.name in self.weights:
                        # Weights begin at multiples of the page size, so that readers can map them into memory.
                        file.seek(-file.tell() % 4096, 1)
                        refer(tensor, data_path.name, file.tell(), self.weights[tensor.name].nbytes)
                        file.write(self.weights[tensor.name].data)
        path.write_bytes(copy.SerializeToString())

    def _copy(self) -> ModelProto:
        copy = ModelProto()
        copy.CopyFrom(self.model)
        return copy


def held_tensor(
    name: str, elem_type: int, shape: tuple[int, ...], data: NDArray[Any]
) -> tuple[TensorProto, NDArray[np.uint8]]:
    """Create an initializer at the location HELD, and the bytes of its data (a view if `data` is contiguous)."""
    held = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    tensor = TensorProto(name=name, data_type=elem_type, dims=shape)
    refer(tensor, HELD, 0, held.nbytes)
    return tensor, held
