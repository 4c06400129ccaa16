"""Rewrite multi-head attention to compute head by head in the layout."""

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto

from triune.graph.ane.borders import HEIGHT, Borders
from triune.graph.ane.layout_pass import LayoutPass
from triune.graph.index import Index, label
from triune.graph.match.channels import Heads, Split
from triune.graph.match.multi_head import MultiHeadAttention, match_multi_head
from triune.graph.match.no_match import NoMatchError

CHANNELS, STEPS = 1, 3
"""The axes of (B, C, 1, S)."""


class SplitHeads(LayoutPass):
    """Given MatMul, a scale, masks, Softmax and MatMul of heads (B, heads, S, width), which are channels of (B, S, C).

    Result: for each head the products of Apple's ml-ane-transformers: keys (B, K, 1, width) times queries
    (B, width, 1, Q) are scores (B, K, 1, Q), whose Softmax is over axis 1; values (B, width, 1, K) times them are
    (B, width, 1, Q), concatenated to the result (B, C, 1, Q). Each product is Unsqueeze(MatMul(Squeeze, Squeeze)) of
    axis 2.
    """

    name = "split_heads"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`."""
        index = self._index(model.graph)
        borders = Borders(index)
        writer = _Writer(index, borders)
        found: dict[str, MultiHeadAttention] = {}
        for node in model.graph.node:
            try:
                attention = match_multi_head(index, node, borders.is_out) if node.op_type == "Softmax" else None
                if attention is not None:
                    _require_near(borders, attention)
                    writer.check(attention)
                    found[attention.output.output[0]] = attention
            except NoMatchError as problem:
                self._report.leave(self.name, label(node), str(problem))
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            attention = found.get(node.output[0]) if node.output else None
            if attention is None:
                nodes.append(node)
                continue
            writer.write(attention)
            nodes += index.take()
            self._report.change(self.name, label(attention.softmax), f"{attention.num_heads} heads, each by itself")
            self._mention_turned(attention)
        index.replace(nodes)
        return model

    def _mention_turned(self, attention: MultiHeadAttention) -> None:
        parts = {"queries": attention.queries, "keys": attention.keys, "values": attention.values}
        turned = [name for name, part in parts.items() if part.heads.is_split]
        if turned:
            text = "computed as (B, heads, S, width): one Transpose more for each"
            self._report.leave(self.name, label(attention.softmax), f"{', '.join(turned)} {text}")


def _require_near(borders: Borders, attention: MultiHeadAttention) -> None:
    """Raises NoMatchError where neither the operands nor the result are in the layout."""
    sources = [each.heads.source for each in (attention.queries, attention.keys, attention.values)]
    if not any(map(borders.is_out, sources)) and not borders.is_entered(attention.output.output[0]):
        raise NoMatchError("nothing before or behind it is in the layout")


class _Writer:
    """Writes attentions. A value that several attentions share, such as a mask, is written once."""

    def __init__(self, index: Index, borders: Borders) -> None:
        self._index = index
        self._borders = borders
        self._masks: dict[tuple[str, int], list[str]] = {}
        self._sources: dict[str, str] = {}

    def check(self, attention: MultiHeadAttention) -> None:
        """Raises NoMatchError where an operand of the scores is of a shape that cannot be split."""
        for step in attention.attention.scores.masking:
            for _, name in step.others:
                dims = self._index.dims(name)
                heads = dims[-3] if dims is not None and len(dims) >= 3 else 1
                if dims is None or len(dims) > 4 or heads not in (1, attention.num_heads):
                    raise NoMatchError(f"the mask '{name}' has no known number of heads")

    def write(self, attention: MultiHeadAttention) -> None:
        """Build the nodes that compute the result of `attention` in the layout."""
        build = self._index.build
        num_heads = attention.num_heads
        scores_of_all = attention.attention.scores
        scale = attention.queries.heads.scale * attention.keys.heads.scale * scores_of_all.scale
        steps = scores_of_all.masking
        queries = self._heads(attention.queries, scale)
        keys = self._heads(attention.keys, 1, is_turned=True)
        values = self._heads(attention.values, attention.values.heads.scale)
        others = [[(operand, self._mask(name, num_heads)) for operand, name in step.others] for step in steps]
        mixed: list[str] = []
        for head in range(num_heads):
            scores = self._product(keys[head], queries[head])
            for step, operands in zip(steps, others, strict=True):
                inputs = [scores] * len(step.node.input)
                for operand, masks in operands:
                    inputs[operand] = masks[head]
                scores = build.op(step.node.op_type, *inputs)
            mixed.append(self._product(values[head], build.op("Softmax", scores, axis=CHANNELS)))
        inside = build.op("Concat", *mixed, axis=CHANNELS) if num_heads > 1 else mixed[0]
        self._borders.leave(inside, attention.output.output[0])

    def _product(self, a: str, b: str) -> str:
        """Build the product of `a` (B, n, 1, m) and `b` (B, m, 1, u); returns its name, (B, n, 1, u)."""
        build = self._index.build
        flat = [build.op("Squeeze", each, build.ints(HEIGHT)) for each in (a, b)]
        return build.op("Unsqueeze", build.op("MatMul", *flat), build.ints(HEIGHT))

    def _heads(self, split: Split, scale: float, *, is_turned: bool = False) -> list[str]:
        """The names of the single heads, (B, width, 1, S); if `is_turned`, as for keys, (B, S, 1, width)."""
        build = self._index.build
        heads, width, stride = split.heads, split.width, split.stride
        num_heads = split.num_heads // split.times
        value, offset = self._source(heads), heads.offset
        is_row = stride == width or num_heads == 1
        if is_row and num_heads * width != heads.num_channels:
            value, offset = self._slice(value, offset, num_heads * width, CHANNELS), 0
        if scale != 1:
            factor = self._index.weight(np.array(scale, self._index.dtype(heads.source)))
            value = build.op("Mul", value, factor)
        axis = CHANNELS
        if is_turned:
            value, axis = build.op("Transpose", value, perm=[0, 3, 2, 1]), STEPS
        if num_heads == 1:
            found = [value]
        elif is_row:
            found = build.ops("Split", num_heads, value, build.ints(*[width] * num_heads), axis=axis)
        else:
            found = [self._slice(value, offset + head * stride, width, axis) for head in range(num_heads)]
        return [head for head in found for _ in range(split.times)]

    def _slice(self, value: str, start: int, size: int, axis: int) -> str:
        build = self._index.build
        return build.op("Slice", value, build.ints(start), build.ints(start + size), build.ints(axis))

    def _source(self, heads: Heads) -> str:
        """The name of the source of heads in the layout, (B, C, 1, S)."""
        if not heads.is_split:
            return self._borders.enter(heads.source)
        if heads.source not in self._sources:
            build = self._index.build
            turned = build.op("Transpose", heads.source, perm=[0, 1, 3, 2])
            shape = build.ints(0, heads.num_channels, 1, -1)
            self._sources[heads.source] = build.op("Reshape", turned, shape)
        return self._sources[heads.source]

    def _mask(self, name: str, num_heads: int) -> Sequence[str]:
        """An operand of the scores (B, heads, Q, K), split into operands of each head's scores (B, K, 1, Q)."""
        key = (name, num_heads)
        if key not in self._masks:
            self._masks[key] = self._turned(name, num_heads)
        return self._masks[key]

    def _turned(self, name: str, num_heads: int) -> list[str]:
        build, index = self._index.build, self._index
        dims = index.dims(name) or ()
        array = index.constant(name)
        if all(dim == 1 for dim in dims):
            return [name] * num_heads
        missing = 4 - len(dims)
        if array is not None:
            turned = index.weight(array.reshape((1,) * missing + array.shape).transpose(0, 3, 1, 2))
        else:
            whole = build.op("Unsqueeze", name, build.ints(*range(missing))) if missing else name
            turned = build.op("Transpose", whole, perm=[0, 3, 1, 2])
        if len(dims) < 3 or dims[-3] == 1:
            return [turned] * num_heads
        return build.ops("Split", num_heads, turned, build.ints(*[1] * num_heads), axis=HEIGHT)
