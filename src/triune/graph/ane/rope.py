"""Compute rotary position embeddings on (B, C, 1, S), the Neural Engine's layout, for all heads at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from triune.graph.ane.borders import AXES, Borders
from triune.graph.ane.layout_pass import LayoutPass
from triune.graph.index import Index, label
from triune.graph.match.channels import STEPS, Channels, Heads, trace
from triune.graph.match.rotary import RotaryEmbedding, match_rotary

CHANNELS = AXES[2]


class Rope(LayoutPass):
    """Given x * cos + rotate_half(x) * sin with x (B, heads, S, width) or (B, S, heads, width), split from the channels
    of a value (B, S, C) that was just transposed from (B, C, 1, S). rotate_half(x) is the negated second half of each
    head, then the first half.

    Result: x * cos + swapped(x) * signed_sin on (B, C, 1, S), for all heads at once. swapped(x) exchanges the halves of
    each head, and signed_sin has its first half negated. The tables cos and signed_sin are built as (B, C, 1, S) once
    for all layers.
    """

    name = "rope"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Rewrite rotary position embeddings in `model`, in place, so that they compute on (B, C, 1, S)."""
        index = self._index(model.graph)
        borders = Borders(index)
        tables = _Tables(index)
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            rotation = _rotation(index, borders, node) if node.op_type == "Add" else None
            if isinstance(rotation, str):
                self._report.leave(self.name, label(node), rotation)
            if not isinstance(rotation, _Rotation):
                nodes.append(node)
                continue
            _write(index, borders, tables, rotation, node.output[0])
            nodes += index.take()
            self._report.change(self.name, label(node), f"{rotation.num_heads} heads rotated at once")
        index.replace(nodes)
        return model


@dataclass(frozen=True, slots=True)
class _Rotation:
    """A matched rotary position embedding.

    Attributes:
        heads: x, whose heads are consecutive channels of one value.
        num_heads: the number of heads.
        width: the channels of a head.
        is_steps_first: whether x is (B, S, heads, width), not (B, heads, S, width).
        cos: the name of the table of cosines, the same for all heads.
        sin: the name of the table of sines, the same for all heads.
    """

    heads: Heads
    num_heads: int
    width: int
    is_steps_first: bool
    cos: str
    sin: str


def _rotation(index: Index, borders: Borders, add: NodeProto) -> _Rotation | str | None:
    """The rotary embedding that ends with `add`; the reason if it cannot be rewritten; None if there is none."""
    checked = (_rotation_of(index, borders, found) for found in match_rotary(index, add, borders.is_out))
    return next((each for each in checked if each is not None), None)


def _rotation_of(index: Index, borders: Borders, found: RotaryEmbedding) -> _Rotation | str | None:
    heads = trace(index, borders.is_out, found.x)
    if heads is None or len(heads.axes) != 4:
        return None
    if heads.is_split:
        return "its heads are not made of the channels of a value (B, S, C)"
    is_steps_first = heads.axes[1] == STEPS
    several, width = heads.axes[2 if is_steps_first else 1], heads.axes[3]
    if not isinstance(several, Channels) or not isinstance(width, Channels):
        return None
    if several.times != 1 or width != Channels(width.size, 1) or several.stride != width.size:
        return "its heads are not consecutive channels"
    if not borders.is_out(heads.source):
        return "no node before it is in the layout"
    for table in (found.cos, found.sin):
        dims = index.dims(table)
        heads_axis = -2 if is_steps_first else -3
        is_same_for_heads = dims is not None and (len(dims) < -heads_axis or dims[heads_axis] == 1)
        if dims is None or not is_same_for_heads or not 0 < len(dims) <= 4 or dims[len(dims) - 1] != width.size:
            return f"its table '{table}' differs from head to head"
    return _Rotation(heads, several.size, width.size, is_steps_first, found.cos, found.sin)


def _write(index: Index, borders: Borders, tables: "_Tables", rotation: _Rotation, name: str) -> None:
    build, heads = index.build, rotation.heads
    num_heads, width = rotation.num_heads, rotation.width
    half = width // 2
    x = borders.enter(heads.source)
    if num_heads * width != heads.num_channels:
        limits = build.ints(heads.offset), build.ints(heads.offset + num_heads * width), build.ints(CHANNELS)
        x = build.op("Slice", x, *limits)
    parts = build.ops("Split", 2 * num_heads, x, build.ints(*[half] * 2 * num_heads), axis=CHANNELS)
    swapped = build.op("Concat", *(parts[i ^ 1] for i in range(len(parts))), axis=CHANNELS)
    cos = tables.get(rotation.cos, rotation, is_signed=False)
    sin = tables.get(rotation.sin, rotation, is_signed=True)
    rotated = build.op("Add", build.op("Mul", x, cos), build.op("Mul", swapped, sin))
    if heads.scale != 1:
        rotated = build.op("Mul", rotated, index.weight(np.array(heads.scale, index.dtype(heads.source))))
    flat = build.name()
    borders.leave(rotated, flat)
    shape = build.ints(0, 0, num_heads, width)
    if rotation.is_steps_first:
        build.put("Reshape", [flat, shape], [name])
    else:
        build.put("Transpose", [build.op("Reshape", flat, shape)], [name], perm=[0, 2, 1, 3])


class _Tables:
    """Builds tables of cosines and sines as (B, heads * width, 1, S). Equal tables are built once."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._of_one_head: dict[tuple[str, int, bool, bool], str] = {}
        self._repeated: dict[tuple[str, int], str] = {}

    def get(self, name: str, rotation: _Rotation, *, is_signed: bool) -> str:
        """The name of a table (B, heads * width, 1, S); if `is_signed`, the first half of each head is negated."""
        key = (name, rotation.width, rotation.is_steps_first, is_signed)
        if key not in self._of_one_head:
            self._of_one_head[key] = self._table(name, rotation, is_signed=is_signed)
        table, count = self._of_one_head[key], rotation.num_heads
        if (table, count) not in self._repeated:
            self._repeated[table, count] = self._index.build.op("Concat", *[table] * count, axis=CHANNELS)
        return self._repeated[table, count]

    def _table(self, name: str, rotation: _Rotation, *, is_signed: bool) -> str:
        build, index = self._index.build, self._index
        perm = (0, 3, 2, 1) if rotation.is_steps_first else (0, 3, 1, 2)
        missing = 4 - (index.rank(name) or 0)
        signs = np.ones((1, rotation.width, 1, 1), index.dtype(name))
        signs[:, : rotation.width // 2] = -1
        array = index.constant(name)
        if array is not None:
            transposed: NDArray[np.generic] = array.reshape((1,) * missing + array.shape).transpose(perm)
            return index.weight(transposed * signs if is_signed else transposed)
        with_four_axes = build.op("Unsqueeze", name, build.ints(*range(missing))) if missing else name
        table = build.op("Transpose", with_four_axes, perm=list(perm))
        return build.op("Mul", table, index.weight(signs)) if is_signed else table
