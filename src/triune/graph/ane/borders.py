"""Transposes into the layout and out of it.

A value (B, S, C) is (B, C, 1, S) in the layout: in by Transpose [0, 2, 1] and Unsqueeze 2, out by Squeeze 2 and
Transpose [0, 2, 1]. A value that a pass has brought out of the layout enters it again without any node.
"""

from onnx import NodeProto

from triune.graph.axes import positive
from triune.graph.index import Index, perm_of

SWAP = (0, 2, 1)
HEIGHT = 2
"""The axis of size 1 in (B, C, 1, S)."""
AXES = {0: 0, 1: 3, 2: 1}
"""The axes of (B, C, 1, S) that hold B, S and C."""


class Borders:
    """The nodes through which values enter or leave the layout: existing ones, and those that a pass adds."""

    def __init__(self, index: Index) -> None:
        """New nodes are added to `index.build`."""
        self._index = index
        self._inside: dict[str, str] = {}

    def is_out(self, name: str) -> bool:
        """Whether a value is computed from a value in the layout, so that it enters again without a Transpose."""
        return name in self._inside or self._turned(name) is not None

    def is_entered(self, name: str) -> bool:
        """Whether a reader of this value is a Transpose into the layout."""
        return any(is_swap(node) for node in self._index.readers(name))

    def enter(self, name: str) -> str:
        """Bring a value (B, S, C) into the layout, as (B, C, 1, S); returns its name there."""
        found = self._inside.get(name)
        if found is not None:
            return found
        build = self._index.build
        turned = self._turned(name)
        if turned is None:
            turned = build.op("Transpose", name, perm=list(SWAP))
            inside = build.op("Unsqueeze", turned, build.ints(HEIGHT))
        else:
            flat = self._index.producer(turned, "Squeeze")
            inside = flat.input[0] if flat is not None and self._is_flattening(flat) else ""
            inside = inside or build.op("Unsqueeze", turned, build.ints(HEIGHT))
        self._inside[name] = inside
        return inside

    def leave(self, inside: str, name: str) -> None:
        """Take the value `inside` (B, C, 1, S) out of the layout, as the value `name` (B, S, C)."""
        build = self._index.build
        flat = build.op("Squeeze", inside, build.ints(HEIGHT))
        build.put("Transpose", [flat], [name], perm=list(SWAP))
        self._inside[name] = inside

    def _turned(self, name: str) -> str | None:
        """The value (B, C, S) whose Transpose `name` (B, S, C) is; None if there is none."""
        node = self._index.producer(name, "Transpose")
        return node.input[0] if node is not None and is_swap(node) else None

    def _is_flattening(self, node: NodeProto) -> bool:
        axes = self._index.ints(node, 1)
        return axes is not None and [positive(axis, 4) for axis in axes] == [HEIGHT]


def is_swap(node: NodeProto) -> bool:
    """Whether a node is a Transpose between (B, S, C) and (B, C, S)."""
    return node.op_type == "Transpose" and perm_of(node, 0) == SWAP
