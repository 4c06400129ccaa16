"""RandomUniform and RandomNormal."""

from collections.abc import Mapping

from onnx import TensorProto

from triune.metal.context import Context, Lowering, builder_of
from triune.metal.library import Value, mx

OPS = frozenset(["RandomUniform", "RandomNormal"])
"""Operators whose results differ from run to run."""


def _key(c: Context) -> Value | None:
    """The key of MLX's random generator for a node with a seed; None for a node without one."""
    return mx.random.key(int(abs(c.attributes["seed"]) * 1000)) if "seed" in c.attributes else None


def _uniform(c: Context) -> None:
    low, high = float(c.attributes.get("low", 0.0)), float(c.attributes.get("high", 1.0))
    found = mx.random.uniform(low, high, list(c.attributes["shape"]), key=_key(c))
    c.give(found.astype(_kind(c)))


def _normal(c: Context) -> None:
    mean, scale = float(c.attributes.get("mean", 0.0)), float(c.attributes.get("scale", 1.0))
    c.give((mx.random.normal(list(c.attributes["shape"]), key=_key(c)) * scale + mean).astype(_kind(c)))


def _kind(c: Context) -> object:
    return builder_of(c).kind_of(int(c.attributes.get("dtype", TensorProto.FLOAT)))


TABLE: Mapping[str, Lowering] = {"RandomUniform": _uniform, "RandomNormal": _normal}
