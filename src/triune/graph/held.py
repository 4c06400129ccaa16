"""A model in memory whose large weights are arrays beside it.

A message of protobuf holds 2 GiB at most and copies what is put into it. The weights of a transformer are larger, and
were read or mapped into memory already, so its graph only names them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from triune.core.errors import UnsupportedError
from triune.graph.weight_files import refer

HELD = "held in memory"
"""The location of external data that are arrays of a `HeldModel`."""

_MOST_BYTES = 2**31 - 1


@dataclass(frozen=True)
class HeldModel:
    """A model and its large weights.

    Attributes:
        model: its large initializers are external data at location HELD.
        weights: the bytes of these initializers by name, UINT8 and contiguous.
    """

    model: ModelProto
    weights: Mapping[str, NDArray[np.uint8]]

    @property
    def weight_bytes(self) -> int:
        """The size of the weights that are held."""
        return sum(each.nbytes for each in self.weights.values())

    def whole(self) -> ModelProto:
        """A copy of the model that contains its weights.

        Raises:
            UnsupportedError: they are larger than a message of protobuf can be.
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
        """A copy of the model for a reader in this process, to which `location` says that offsets are addresses.

        The addresses are valid while this object lives.
        """
        copy = self._copy()
        for tensor in copy.graph.initializer:
            if tensor.name in self.weights:
                refer(tensor, location, self.weights[tensor.name].ctypes.data, self.weights[tensor.name].nbytes)
        return copy

    def save(self, path: Path) -> None:
        """Write an ONNX file, and its large weights to a file of that name and `.data` beside it.

        Raises:
            OSError: a file cannot be written.
        """
        copy, data_path = self._copy(), path.with_name(f"{path.name}.data")
        if self.weights:
            with data_path.open("wb") as file:
                for tensor in copy.graph.initializer:
                    if tensor.name in self.weights:
                        # Readers may map the file: weights begin at multiples of a page.
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
    """An initializer at location HELD, and the bytes of its data, a view of them if they are contiguous."""
    held = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    tensor = TensorProto(name=name, data_type=elem_type, dims=shape)
    refer(tensor, HELD, 0, held.nbytes)
    return tensor, held
