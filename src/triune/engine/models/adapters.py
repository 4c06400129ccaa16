"""LoRA adapters in a graph: each token's adapter adds a low-rank product to the outputs of layers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from triune.engine.weights.lora import Adapter

if TYPE_CHECKING:
    from triune.engine.models.builder import ModelBuilder


class Adapters:
    """The adapters of a graph.

    Inputs: `adapters` INT64, of the shape of the token ids, has the adapter of each token: 0 for none, else its
    position in the list, counted from 1. In the paged form `adapters` INT64 [adapted] has only the tokens with an
    adapter, and `adapter_rows` INT64 [adapted] has their positions among the packed tokens, so that a step without
    adapters costs nothing more.

    The matrices of all adapters are joined, so that each layer computes two small products more, whichever adapters a
    step uses. The first product gives [..., sum of the ranks]; all columns but those of the token's own adapter are
    then set to 0.
    """

    def __init__(self, graph: "ModelBuilder", adapters: Sequence[Adapter]) -> None:
        self._graph = graph
        self._adapters = adapters
        self._chosen = ""
        self._rows = ""
        self._column = ""
        self._masks: dict[tuple[int, ...], str] = {}

    def declare(self, *shape: str) -> None:
        """Declare the inputs for token ids of this shape. Does nothing if there are no adapters."""
        graph = self._graph
        if not self._adapters:
            return
        if len(shape) == 1:
            shape = ("adapted",)
            self._rows = graph.input("adapter_rows", TensorProto.INT64, *shape)
        ids = graph.input("adapters", TensorProto.INT64, *shape)
        self._chosen = graph.op("Unsqueeze", ids, graph.ints(-1))

    def added(self, y: str, x: str, sizes: Mapping[str, int]) -> str:
        """Add to `y`, for each token, the product of `x` with the matrices of the token's adapter. Returns the name of
        the sum.

        Args:
            y: the products of `x` with the matrices of several layers, concatenated along the last axis.
            x: the input of the layers.
            sizes: how many columns of `y` each of these layers has, by its name.
        """
        downs: list[NDArray[np.float32]] = []
        owners: list[int] = []
        begins = np.cumsum([0, *sizes.values()]).tolist()
        ups: list[tuple[int, NDArray[np.float32]]] = []
        for name, begin in zip(sizes, begins, strict=False):
            for number, adapter in enumerate(self._adapters, 1):
                if (matrices := adapter.modules.get(name)) is not None:
                    downs.append(matrices.down)
                    owners += [number] * len(matrices.down)
                    ups.append((begin, matrices.up))
        if not downs:
            return y
        whole = " + ".join(sizes)
        up = np.zeros((begins[-1], len(owners)), np.float32)
        column = 0
        for begin, matrix in ups:
            rows, rank = matrix.shape
            up[begin : begin + rows, column : column + rank] = matrix
            column += rank
        graph = self._graph
        if self._rows:
            x = graph.op("Gather", x, self._rows)
        narrow = graph.product_with(x, f"{whole}.adapters down", np.concatenate(downs))
        # Where sets the columns of other adapters to 0. A product with 0 would be NaN where their numbers are infinite.
        own = graph.op("Where", self._mask(tuple(owners)), narrow, graph.scalar(0))
        added = graph.product_with(own, f"{whole}.adapters up", up)
        if not self._rows:
            return graph.op("Add", y, added)
        return graph.op("ScatterND", y, self._places(), added, reduction="add")

    def _places(self) -> str:
        """The positions of the tokens with adapters in the shape [adapted, 1] that ScatterND requires. The node is
        built once in a graph.
        """
        if not self._column:
            self._column = self._graph.op("Unsqueeze", self._rows, self._graph.ints(-1))
        return self._column

    def _mask(self, owners: tuple[int, ...]) -> str:
        """BOOL [..., columns]: whether a column belongs to the token's adapter. `owners` has the number of each
        column's adapter, from 1 on.
        """
        if owners not in self._masks:
            table = self._graph.ints(*owners)
            self._masks[owners] = self._graph.op("Equal", self._chosen, table)
        return self._masks[owners]
