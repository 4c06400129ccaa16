"""Replace patterns that a runtime computes faster as one operation by calls of ONNX functions in the model.

The functions, in the domain "triune.fused", have the replaced nodes as their bodies. They stand for the composite
operations of Apple's Core AI: `rms_norm`, `rope`, `scaled_dot_product_attention` and `gather_mm`.
"""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto

from triune.graph.check import Check
from triune.graph.fused.attention import FuseAttention
from triune.graph.fused.call import DOMAIN
from triune.graph.fused.gather_matmul import FuseGatherMatMul
from triune.graph.fused.rms_norm import FuseRmsNorm
from triune.graph.fused.rotary import FuseRotary
from triune.graph.passes.run import run_passes
from triune.graph.weight_files import WeightFile

__all__ = ["DOMAIN", "fuse"]


def fuse(
    model: ModelProto, *, check: Mapping[str, NDArray[Any]] | None = None, file: WeightFile | None = None
) -> ModelProto:
    """Replace each RMS normalization, rotary embedding, attention and gathered matrix product by a call of a function.

    Args:
        model: normalized; changed. Subgraphs stay as they are.
        check: inputs on which ONNX's reference evaluator computes the model before and after, to compare the outputs.
        file: the scratch file for new large weights; without it they are stored in the model.

    Raises:
        InternalError: the outputs changed (only with `check`).
    """
    watch = None if check is None else Check(model, check)
    # No pattern is a part of another one, so the order does not matter.
    patterns = (FuseRmsNorm(file), FuseRotary(file), FuseAttention(file), FuseGatherMatMul(file))
    return run_passes(model, patterns, watch)
