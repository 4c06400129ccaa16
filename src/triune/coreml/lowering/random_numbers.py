"""Lowering of RandomUniform and RandomNormal: ONNX's distributions, but not ONNX Runtime's numbers."""

import numpy as np
from onnx import TensorProto

from triune.coreml.lowering.context import Context, Lowering
from triune.coreml.lowering.mb import mb


def _random(name: str, defaults: dict[str, tuple[str, float]]) -> Lowering:
    """Return the lowering to the MIL operation `name`.

    Args:
        name: the operation.
        defaults: for each of its operands, the ONNX attribute and the default of that attribute.
    """

    def lower(c: Context) -> None:
        kind = np.float16 if c.attributes.get("dtype", TensorProto.FLOAT) == TensorProto.FLOAT16 else np.float32
        operands = {key: kind(c.attributes.get(given, value)) for key, (given, value) in defaults.items()}
        seed = int(c.attributes["seed"]) if "seed" in c.attributes else -1
        c.give(getattr(mb, name)(shape=list(c.attributes["shape"]), seed=np.int32(seed), **operands))

    return lower


TABLE: dict[str, Lowering] = {
    "RandomUniform": _random("random_uniform", {"low": ("low", 0.0), "high": ("high", 1.0)}),
    "RandomNormal": _random("random_normal", {"mean": ("mean", 0.0), "stddev": ("scale", 1.0)}),
}
