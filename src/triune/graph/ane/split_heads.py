"""Rewrite multi-head attention to compute head by head on (B, width, 1, S), as the Neural Engine's layout asks."""

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
"""The axes of C and S in (B, C, 1, S)."""


class SplitHeads(LayoutPass):
    """Given attention, softmax(q k^T scale + mask) v, with heads (B, heads, S, width) that are split from (B, S, C).

    Result: for each head the products of Apple's ml-ane-transformers. Keys (B, K, 1, width) times queries (B, width, 1,
    Q) give scores (B, K, 1, Q), whose Softmax is over axis 1. Values (B, width, 1, K) times the Softmax give (B, width,
    1, Q), and the heads are concatenated to (B, C, 1, Q). Each product is a MatMul without axis 2, which is squeezed
    before and unsqueezed afterwards.
    """

    name = "split_heads"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Rewrite multi-head attention in `model`, in place, so that it computes head by head."""
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
            self._report.change(self.name, label(attention.softmax), f"{attention.num_heads} heads, one by one")
            self._report_transposes(attention)
        index.replace(nodes)
        return model

    def _report_transposes(self, attention: MultiHeadAttention) -> None:
        parts = {"queries": attention.queries, "keys": attention.keys, "values": attention.values}
        transposed = [name for name, part in parts.items() if part.heads.is_split]
        if transposed:
            text = "are computed as (B, heads, S, width), which takes one more Transpose for each"
            self._report.leave(self.name, label(attention.softmax), f"{', '.join(transposed)} {text}")


def _require_near(borders: Borders, attention: MultiHeadAttention) -> None:
    """Raises NoMatchError if neither an operand nor the result is in the layout (B, C, 1, S)."""
    sources = [each.heads.source for each in (attention.queries, attention.keys, attention.values)]
    if not any(map(borders.is_out, sources)) and not borders.is_entered(attention.output.output[0]):
        raise NoMatchError("no node before or after it is in the layout")


class _Writer:
    """Builds the nodes of attentions. What several attentions share, such as a mask, is built once."""

    def __init__(self, index: Index, borders: Borders) -> None:
        self._index = index
        self._borders = borders
        self._masks: dict[tuple[str, int], list[str]] = {}
        self._sources: dict[str, str] = {}

    def check(self, attention: MultiHeadAttention) -> None:
        """Raises NoMatchError if a mask has a shape that cannot be split into heads."""
        for step in attention.attention.scores.masking:
            for _, name in step.others:
                dims = self._index.dims(name)
                heads = dims[-3] if dims is not None and len(dims) >= 3 else 1
                if dims is None or len(dims) > 4 or heads not in (1, attention.num_heads):
                    raise NoMatchError(
                        f"the number of heads of the mask '{name}' is not known, or is not {attention.num_heads}"
                    )

    def write(self, attention: MultiHeadAttention) -> None:
        """Build the nodes that compute `attention` in the layout, and bring its result back to (B, S, C)."""
        build = self._index.build
        num_heads = attention.num_heads
        scores_of_all = attention.attention.scores
        scale = attention.queries.heads.scale * attention.keys.heads.scale * scores_of_all.scale
        steps = scores_of_all.masking
        queries = self._heads(attention.queries, scale)
        keys = self._heads(attention.keys, 1, is_transposed=True)
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
        """Build the product of `a` (B, n, 1, m) and `b` (B, m, 1, u); returns the name of the result (B, n, 1, u)."""
        build = self._index.build
        flat = [build.op("Squeeze", each, build.ints(HEIGHT)) for each in (a, b)]
        return build.op("Unsqueeze", build.op("MatMul", *flat), build.ints(HEIGHT))

    def _heads(self, split: Split, scale: float, *, is_transposed: bool = False) -> list[str]:
        """Build the single heads, (B, width, 1, S), or (B, S, 1, width) if `is_transposed`, as for keys; returns their
        names.
        """
        build = self._index.build
        heads, width, stride = split.heads, split.width, split.stride
        num_heads = split.num_heads // split.times
        value, offset = self._source(heads), heads.offset
        are_consecutive = stride == width or num_heads == 1
        if are_consecutive and num_heads * width != heads.num_channels:
            value, offset = self._slice(value, offset, num_heads * width, CHANNELS), 0
        if scale != 1:
            factor = self._index.weight(np.array(scale, self._index.dtype(heads.source)))
            value = build.op("Mul", value, factor)
        axis = CHANNELS
        if is_transposed:
            value, axis = build.op("Transpose", value, perm=[0, 3, 2, 1]), STEPS
        if num_heads == 1:
            found = [value]
        elif are_consecutive:
            found = build.ops("Split", num_heads, value, build.ints(*[width] * num_heads), axis=axis)
        else:
            found = [self._slice(value, offset + head * stride, width, axis) for head in range(num_heads)]
        return [head for head in found for _ in range(split.times)]

    def _slice(self, value: str, start: int, size: int, axis: int) -> str:
        build = self._index.build
        return build.op("Slice", value, build.ints(start), build.ints(start + size), build.ints(axis))

    def _source(self, heads: Heads) -> str:
        """Build the value (B, C, 1, S) whose channels are the heads; returns its name."""
        if not heads.is_split:
            return self._borders.enter(heads.source)
        if heads.source not in self._sources:
            build = self._index.build
            transposed = build.op("Transpose", heads.source, perm=[0, 1, 3, 2])
            shape = build.ints(0, heads.num_channels, 1, -1)
            self._sources[heads.source] = build.op("Reshape", transposed, shape)
        return self._sources[heads.source]

    def _mask(self, name: str, num_heads: int) -> Sequence[str]:
        """Build, from a mask (B, heads, Q, K), a mask (B, K, 1, Q) for each head; returns their names."""
        key = (name, num_heads)
        if key not in self._masks:
            self._masks[key] = self._masks_of_heads(name, num_heads)
        return self._masks[key]

    def _masks_of_heads(self, name: str, num_heads: int) -> list[str]:
        build, index = self._index.build, self._index
        dims = index.dims(name) or ()
        array = index.constant(name)
        if all(dim == 1 for dim in dims):
            return [name] * num_heads
        missing = 4 - len(dims)
        if array is not None:
            transposed = index.weight(array.reshape((1,) * missing + array.shape).transpose(0, 3, 1, 2))
        else:
            with_four_axes = build.op("Unsqueeze", name, build.ints(*range(missing))) if missing else name
            transposed = build.op("Transpose", with_four_axes, perm=[0, 3, 1, 2])
        if len(dims) < 3 or dims[-3] == 1:
            return [transposed] * num_heads
        return build.ops("Split", num_heads, transposed, build.ints(*[1] * num_heads), axis=HEIGHT)
