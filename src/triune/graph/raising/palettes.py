"""Keep weights palettized in ONNX: a Gather of their indices from a small table."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, helper

from triune.graph.raising.quantized_weights import FEWEST, weight_tensor
from triune.graph.raising.types import Array, DType


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """Palettized weights: look-up tables, and for each weight an index into its table.

    Attributes:
        indices: the indices, and their type: UINT4 if a table has at most 16 entries, else UINT8.
        starts: INT32, broadcasts to the indices: where each weight's table begins in `table`; None if there is one
            table.
        table: all tables, concatenated.
        dtype: the element type of the table.
    """

    indices: tuple[Array, DType]
    starts: Array | None
    table: Array
    dtype: DType

    def protos(self, name: str, fresh: Callable[[str], str]) -> tuple[list[NodeProto], list[TensorProto]]:
        """The nodes that compute the value `name` from constants, and these constants. `fresh` makes unused names."""
        indices, table, place = (fresh(f"{name}/{part}") for part in ("indices", "table", "place"))
        tensors = [weight_tensor(indices, *self.indices), weight_tensor(table, self.table, self.dtype)]
        nodes = [helper.make_node("Cast", [indices], [place], name=place, to=TensorProto.INT32)]
        if self.starts is not None:
            starts, whole = fresh(f"{name}/starts"), fresh(f"{place}/all")
            tensors.append(weight_tensor(starts, self.starts, DType.INT32))
            nodes.append(helper.make_node("Add", [place, starts], [whole], name=whole))
        nodes.append(helper.make_node("Gather", [table, nodes[-1].output[0]], [name], name=name, axis=0))
        return nodes, tensors


def palette(indices: Array, lut: Array, dtype: DType) -> Palette | None:
    """Create a `Palette`; None if the weights are few, or if tables differ along several axes, or entries have several
    elements.

    Args:
        indices: the index of each weight, of any shape.
        lut: the tables, of shape [blocks along each axis..., entries of a table, 1].
        dtype: the element type of the tables.
    """
    blocks = [axis for axis, size in enumerate(lut.shape[:-2]) if size != 1]
    if indices.size < FEWEST or lut.shape[-1] != 1 or len(blocks) > 1 or dtype not in (DType.FP16, DType.FP32):
        return None
    count = int(lut.shape[-2])
    starts: Array | None = None
    if blocks:
        axis, size = blocks[0], int(indices.shape[blocks[0]])
        form = [-1 if each == axis else 1 for each in range(indices.ndim)]
        rows = size // int(lut.shape[axis])
        starts = np.array([row // rows * count for row in range(size)], np.int32).reshape(form)
    kind = DType.UINT4 if count <= 16 else DType.UINT8
    return Palette((indices.astype(np.uint8), kind), starts, lut.reshape(-1), dtype)
