"""Rewrite a model for the Neural Engine: core operators, its layout, and numbers within fp16."""

from onnx import ModelProto

from triune.graph.ane import ane_layout
from triune.graph.declare_older import OLDER, declare_older
from triune.graph.editing import opset_of
from triune.graph.half import fit_half
from triune.graph.normalize import normalize
from triune.graph.passes.run import GraphPass
from triune.graph.weight_files import WeightFile


class CoreOps(GraphPass):
    """Given a model of any operators. Result: the model in core operators, in the newest operator set that ONNX Runtime
    supports.

    The other passes for the Neural Engine, and the conversions to Core ML and Core AI, support only these operators.
    """

    name = "core_ops"

    def __init__(self, file: WeightFile) -> None:
        """`file` is the scratch file for new large weights."""
        self._file = file

    def __call__(self, model: ModelProto) -> ModelProto:
        """Returns the new model."""
        core = normalize(model, file=self._file)
        declare_older(core)
        return core


class AneLayout(GraphPass):
    """Given a transformer of core operators. Result: one that computes on (B, C, 1, S), the Neural Engine's layout."""

    name = "ane_layout"

    def __init__(self, file: WeightFile) -> None:
        """`file` is the scratch file for new large weights."""
        self._file = file

    def __call__(self, model: ModelProto) -> ModelProto:
        """Returns the new model; `model` itself if it is not a transformer, or not of core operators."""
        return ane_layout(model, file=self._file) if opset_of(model) >= OLDER else model


class SafeHalf(GraphPass):
    """Given a model of core operators in fp32. Result: the same numbers by nodes that stay within fp16: masks, scales
    and norms are rewritten. The model still computes in fp32; a later conversion to fp16 keeps nodes in fp32 that
    cannot be rewritten so.
    """

    name = "safe_half"

    def __init__(self, file: WeightFile) -> None:
        """`file` is the scratch file for new large weights."""
        self._file = file

    def __call__(self, model: ModelProto) -> ModelProto:
        """Return a model that stays within fp16; `model` itself may be changed, too.

        If its operator set is older than `OLDER`, `model` is not in core operators, and is returned unchanged.
        """
        return fit_half(model, self._file).model if opset_of(model) >= OLDER else model
