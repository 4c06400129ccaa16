"""LoRA adapters in a graph: what they add to the products of layers, each to its own tokens."""

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

    Input: `adapters` INT64, the adapter of each token: 0 for none, else its place in the list, counted from 1.

    The matrices of all adapters are joined, so that a layer has two small products more, whatever adapters the tokens
    of a step have: the first gives [..., sum of the ranks], of which a token keeps what is its own adapter's.
    """

    def __init__(self, graph: "ModelBuilder", adapters: Sequence[Adapter]) -> None:
        self._graph = graph
        self._adapters = adapters
        self._chosen = ""
        self._masks: dict[tuple[int, ...], str] = {}

    def declare(self, *shape: str) -> None:
        """Declare the input, of the shape of the token ids; nothing if there are no adapters."""
        if self._adapters:
            ids = self._graph.input("adapters", TensorProto.INT64, *shape)
            self._chosen = self._graph.op("Unsqueeze", ids, self._graph.ints(-1))

    def added(self, y: str, x: str, sizes: Mapping[str, int]) -> str:
        """Add to `y` what adapters add.

        Args:
            y: the products of `x` with the matrices of layers, one after the other.
            x: what the layers read.
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
        narrow = graph.product_with(x, f"{whole}.adapters down", np.concatenate(downs))
        # Not a product with 0 and 1: where another adapter's numbers are infinite, that would be no number.
        own = graph.op("Where", self._mask(tuple(owners)), narrow, graph.scalar(0))
        return graph.op("Add", y, graph.product_with(own, f"{whole}.adapters up", up))

    def _mask(self, owners: tuple[int, ...]) -> str:
        """BOOL [..., columns]: whether a column belongs to the token's adapter."""
        if owners not in self._masks:
            table = self._graph.ints(*owners)
            self._masks[owners] = self._graph.op("Equal", self._chosen, table)
        return self._masks[owners]
