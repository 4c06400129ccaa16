"""A model in memory with its large weights as separate arrays.

A protobuf message has at most 2 GiB, and copies what is put into it. The weights of a transformer are larger, and have
already been read or mapped into memory. So the model refers to them as external data.
"""

import contextlib
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
        """The elements of an initializer; elements of 4 bits as INT8 or UINT8. Other large arrays are not copied."""
        if tensor.name not in self.weights:
            return array_of(tensor)
        data, shape = self.weights[tensor.name], tuple(tensor.dims)
        if tensor.data_type not in (TensorProto.INT4, TensorProto.UINT4):
            return data.view(helper.tensor_dtype_to_np_dtype(tensor.data_type)).reshape(shape)
        codes = np.stack([data & 15, data >> 4], axis=-1).reshape(-1)[: math.prod(shape)].reshape(shape)
        # Two's complement of 4 bits: 8 to 15 are -8 to -1.
        return codes if tensor.data_type == TensorProto.UINT4 else ((codes ^ 8).astype(np.int8) - 8)

    def whole(self) -> ModelProto:
        """Make a copy of the model that contains its large weights.

        Raises:
            UnsupportedError: the weights are larger than a protobuf message can be.
        """
        if self.weight_bytes > _MOST_BYTES:
            raise UnsupportedError(
                f"the weights take {self.weight_bytes} bytes, and an ONNX model in one piece at most {_MOST_BYTES}: "
                "save it with its weights in a file beside it"
            )
        copy = self.copy()
        for tensor in copy.graph.initializer:
            if tensor.name in self.weights:
                tensor.ClearField("data_location")
                tensor.ClearField("external_data")
                tensor.raw_data = self.weights[tensor.name].tobytes()
        return copy

    def referring(self, location: str) -> ModelProto:
        """Make a copy of the model whose external data have `location` and, as offsets, addresses in this process.

        The reader must interpret `location` so that offsets are addresses. They are valid as long as this object
        exists.
        """
        copy = self.copy()
        for tensor in copy.graph.initializer:
            if tensor.name in self.weights:
                refer(tensor, location, self.weights[tensor.name].ctypes.data, self.weights[tensor.name].nbytes)
        return copy

    def save(self, path: Path) -> None:
        """Write an ONNX file, and its large weights to a second file, named as the first with `.data` appended.

        Raises:
            OSError: a file cannot be written.
        """
        save_together({path: self})

    def copy(self) -> ModelProto:
        """A copy of the model that can be changed. Its large weights are not in it."""
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


def save_together(models: Mapping[Path, HeldModel]) -> None:
    """Write models as ONNX files in one folder, and their large weights to a file beside the first one, named as that
    with `.data` appended. Weights of equal names and bytes are written once.

    Raises:
        OSError: a file cannot be written.
    """
    first = next(iter(models))
    data_path = first.with_name(f"{first.name}.data")
    written: dict[str, list[tuple[NDArray[np.uint8], int]]] = {}
    with contextlib.ExitStack() as stack:
        file = None
        for path, model in models.items():
            copy = model.copy()
            for tensor in copy.graph.initializer:
                if tensor.name not in model.weights:
                    continue
                weight, known = model.weights[tensor.name], written.setdefault(tensor.name, [])
                offset = next((place for other, place in known if np.array_equal(other, weight)), None)
                if offset is None:
                    file = file or stack.enter_context(data_path.open("wb"))
                    # Weights begin at multiples of the page size, so that readers can map them into memory.
                    offset = file.seek(-file.tell() % 4096, 1)
                    file.write(weight.data)
                    known.append((weight, offset))
                refer(tensor, data_path.name, offset, weight.nbytes)
            path.write_bytes(copy.SerializeToString())
