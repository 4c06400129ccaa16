"""Patterns that a runtime computes faster as one operation: each becomes a call of a function of the model.

The functions (domain `call.DOMAIN`) have bodies that compute the same as the nodes did. They are the composite
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
    """Given core ops. Result: calls of functions for the patterns that can be fused; see the module.

    Args:
        model: normalized; changed. Graphs within its nodes stay as they are.
        check: inputs on which the model is computed before and after, by ONNX's reference evaluator.
        file: takes large weights that are made; without it they are in the model.

    Raises:
        InternalError: the model computes something else (only with `check`).
    """
    watch = None if check is None else Check(model, check)
    # No pattern is a part of another one, so that their order does not matter.
    patterns = (FuseRmsNorm(file), FuseRotary(file), FuseAttention(file), FuseGatherMatMul(file))
    return run_passes(model, patterns, watch)
