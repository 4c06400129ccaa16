"""Normalizations of com.microsoft that are fused with a residual sum or with embeddings."""

import numpy as np
from onnx import TensorProto

from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.context import Context, Decomposition

_EPSILON = 1e-12


def _sum(c: Context, bias: int) -> str:
    """Build the residual sum input + skip + bias, which is output 3. The skip broadcasts over the batch."""
    total = c.build.op("Add", c.input(0), c.input(1))
    if c.input(bias):
        total = c.build.op("Add", total, c.input(bias))
    c.give(total, 3)
    return total


def _no_statistics(c: Context) -> None:
    """Raises Refusal if output 1 or 2 (mean, 1 / deviation) is read: ONNX Runtime's CPU kernels do not compute
    these.
    """
    if c.is_read(1) or c.is_read(2):
        raise Refusal("its mean and deviation are read, which ONNX Runtime computes only for training")


def skip_layer_normalization(c: Context) -> bool:
    """SkipLayerNormalization: LayerNormalization of input + skip + bias over the last axis."""
    _no_statistics(c)
    weights = [each for each in (c.input(2), c.input(3)) if each]
    epsilon = c.attributes.get("epsilon", _EPSILON)
    c.give(c.build.op("LayerNormalization", _sum(c, 4), *weights, axis=-1, epsilon=epsilon))
    return True


def rms_normalized(c: Context, x: str, scale: str, epsilon: float) -> str:
    """Build RMS normalization, x / sqrt(mean(x^2) + epsilon) * scale, in fp32 as ONNX Runtime computes it."""
    b, elem_type = c.build, c.values.elem_type(scale)
    is_half = elem_type == TensorProto.FLOAT16
    wide = b.cast(x, TensorProto.FLOAT) if is_half else x
    kind = TensorProto.FLOAT if is_half else elem_type
    mean = b.op("ReduceMean", b.op("Mul", wide, wide), b.ints(-1), keepdims=1)
    root = b.op("Sqrt", b.op("Add", mean, b.typed(epsilon, kind)))
    normed = b.op("Div", wide, root)
    return b.op("Mul", b.cast(normed, elem_type) if is_half else normed, scale)


def skip_simplified_layer_normalization(c: Context) -> bool:
    """SkipSimplifiedLayerNormalization: RMS normalization of input + skip + bias."""
    _no_statistics(c)
    if not c.values.elem_type(c.input(2)):
        return False
    c.give(rms_normalized(c, _sum(c, 3), c.input(2), c.attributes.get("epsilon", _EPSILON)))
    return True


def embed_layer_normalization(c: Context) -> bool:
    """EmbedLayerNormalization: LayerNormalization of the sum of word, position and segment embeddings.

    Output 1 is the number of ones in each row of the mask, 0 without a mask.
    """
    if c.attributes.get("mask_index_type", 1) not in (0, 1) and c.is_read(1):
        return False
    tables = [c.input(position) for position in range(2, 7)]
    c.give(_embedded(c, tables, mask=c.input(7), positions=c.input(8)), 2)
    return True


def q_embed_layer_normalization(c: Context) -> bool:
    """QEmbedLayerNormalization: EmbedLayerNormalization with 8-bit tables. The inputs after the mask are the scales and
    zero points of the tables.
    """
    tables: list[str] = []
    for position in range(2, 7):
        names = [c.input(position), c.input(position + 6), c.input(position + 11)]
        tables.append(c.build.op("DequantizeLinear", *(each for each in names if each)) if names[0] else "")
    _embedded(c, tables, mask=c.input(7), positions="")
    return True


def _embedded(c: Context, tables: list[str], *, mask: str, positions: str) -> str:
    """Build the node's first two outputs; returns the name of the sum of the embeddings before normalization.

    Args:
        c: the node, with word and segment ids as inputs 0 and 1.
        tables: the names of the tables of words, positions and segments ("" for none), then of gamma and beta.
        mask: the name of the mask, 1 at tokens and 0 at padding; "" for none.
        positions: the name of the position ids; "" if they count from 0.
    """
    b, words = c.build, c.input(0)
    if positions:
        at = b.op("Gather", tables[1], positions)
    else:
        length = b.op("Gather", b.op("Shape", words), b.ints(1))
        at = b.op("Slice", tables[1], b.ints(0), length, b.ints(0))
    total = b.op("Add", b.op("Gather", tables[0], words), at)
    if tables[2]:
        # Without segment ids every token belongs to segment 0.
        segments = c.input(1) or b.op("Sub", words, words)
        total = b.op("Add", total, b.op("Gather", tables[2], segments))
    epsilon = c.attributes.get("epsilon", _EPSILON)
    c.give(b.op("LayerNormalization", total, tables[3], tables[4], axis=-1, epsilon=epsilon))
    if c.is_read(1):
        ones = b.op("Equal", mask, b.constant(1, np.int32)) if mask else ""
        counted = b.cast(ones, TensorProto.INT32) if ones else b.op("Sub", words, words)
        c.give(b.op("ReduceSum", counted, b.ints(1), keepdims=0), 1)
    return total


TABLE: dict[str, Decomposition] = {
    "SkipLayerNormalization": skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": skip_simplified_layer_normalization,
    "EmbedLayerNormalization": embed_layer_normalization,
    "QEmbedLayerNormalization": q_embed_layer_normalization,
}
