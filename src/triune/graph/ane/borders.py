"""Transposes between (B, S, C), as exporters write activations, and (B, C, 1, S), the Neural Engine's layout.

A value enters the layout by Transpose [0, 2, 1] and Unsqueeze of axis 2. It leaves by Squeeze of axis 2 and Transpose
[0, 2, 1]. If a value that has left the layout enters it again, no new nodes are needed, since its form (B, C, 1, S)
still exists.
"""

from onnx import NodeProto

from triune.graph.axes import positive
from triune.graph.index import Index, perm_of

SWAP = (0, 2, 1)
HEIGHT = 2
"""The axis of size 1 in (B, C, 1, S)."""
AXES = {0: 0, 1: 3, 2: 1}
"""Maps each axis of (B, S, C) to its axis in (B, C, 1, S)."""


class Borders:
    """Finds and builds the nodes through which values enter or leave the layout (B, C, 1, S)."""

    def __init__(self, index: Index) -> None:
        """New nodes are added to `index.build`."""
        self._index = index
        self._inside: dict[str, str] = {}

    def is_out(self, name: str) -> bool:
        """Whether a value (B, S, C) is the transpose of a value (B, C, 1, S) or (B, C, S), so that a reader can take
        that one instead.
        """
        return name in self._inside or self._transposed(name) is not None

    def is_entered(self, name: str) -> bool:
        """Whether a node that reads the value `name` (B, S, C) transposes it to (B, C, S) already."""
        return any(is_swap(node) for node in self._index.readers(name))

    def enter(self, name: str) -> str:
        """Build the nodes that bring a value (B, S, C) to (B, C, 1, S); returns the name of the result."""
        found = self._inside.get(name)
        if found is not None:
            return found
        build = self._index.build
        transposed = self._transposed(name)
        if transposed is None:
            transposed = build.op("Transpose", name, perm=list(SWAP))
            inside = build.op("Unsqueeze", transposed, build.ints(HEIGHT))
        else:
            flat = self._index.producer(transposed, "Squeeze")
            inside = flat.input[0] if flat is not None and self._is_flattening(flat) else ""
            inside = inside or build.op("Unsqueeze", transposed, build.ints(HEIGHT))
        self._inside[name] = inside
        return inside

    def leave(self, inside: str, name: str) -> None:
        """Build the nodes that bring the value `inside` (B, C, 1, S) to (B, S, C), with the name `name`."""
        build = self._index.build
        flat = build.op("Squeeze", inside, build.ints(HEIGHT))
        build.put("Transpose", [flat], [name], perm=list(SWAP))
        self._inside[name] = inside

    def _transposed(self, name: str) -> str | None:
        """The value (B, C, S) whose Transpose is the value `name` (B, S, C); None if `name` is not the result of such a
        Transpose.
        """
        node = self._index.producer(name, "Transpose")
        return node.input[0] if node is not None and is_swap(node) else None

    def _is_flattening(self, node: NodeProto) -> bool:
        axes = self._index.ints(node, 1)
        return axes is not None and [positive(axis, 4) for axis in axes] == [HEIGHT]


def is_swap(node: NodeProto) -> bool:
    """Whether a node is a Transpose between (B, S, C) and (B, C, S)."""
    return node.op_type == "Transpose" and perm_of(node, 0) == SWAP
