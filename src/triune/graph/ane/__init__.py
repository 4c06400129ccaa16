"""Rewrite transformers so that activations have the shape (B, C, 1, S), which Apple's Neural Engine computes fastest.

Exporters write a transformer's activations as (B, S, C): batch, steps of the sequence, channels. The Neural Engine is
made for convolutions of images (batch, channels, height, width), and pads the last axis to 64 bytes. So (B, C, 1, S) is
faster: an image of height 1 whose width is the sequence. This package calls it the layout. Apple published the rules
("Deploying Transformers on the Apple Neural Engine", machinelearning.apple.com, 2022, and the repository
apple/ml-ane-transformers). Each rule is a pass:

- `NanGuards`: removes Where(IsNaN(softmax), 0, softmax), if the mask shows which rows are NaN.
- `KnownShapes`: sizes in the target of a Reshape or Expand become constants where they are known.
- `WithoutReshapes`: removes Reshapes around a Softmax, and around a Transpose of the last two axes.
- `LinearToConv`: a linear layer becomes a 1x1 convolution.
- `Rope`: computes rotary position embeddings of all heads at once, in (B, C, 1, S).
- `SplitHeads`: computes attention head by head, with operands (B, width, 1, S).
- `ChannelNorm`: computes layer normalization over axis 1 of (B, C, 1, S).
- `Layout`: the operators between these (elementwise, reductions, Softmax) compute on (B, C, 1, S) too.
- `Cancel`: removes Transposes that undo each other. Then `Layout` runs again, since more neighbours may now be
  rewritten.

Values of masks are not changed here. For fp16 `graph.half` replaces those that fp16 cannot represent.

After every pass the graph computes the same. Each pass puts Transposes around what it rewrites (`borders`). The
model's inputs and outputs never change. `triune.graph.match` finds the patterns.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto

from triune.graph.ane.cancel import Cancel
from triune.graph.ane.channel_norm import ChannelNorm
from triune.graph.ane.known_shapes import KnownShapes
from triune.graph.ane.layout import Layout
from triune.graph.ane.layout_pass import LayoutPass
from triune.graph.ane.linear_to_conv import LinearToConv
from triune.graph.ane.nan_guards import NanGuards
from triune.graph.ane.report import Report
from triune.graph.ane.rope import Rope
from triune.graph.ane.split_heads import SplitHeads
from triune.graph.ane.without_reshapes import WithoutReshapes
from triune.graph.check import Check
from triune.graph.passes.infer import Infer
from triune.graph.passes.run import GraphPass, run_passes
from triune.graph.passes.tidy import Tidy
from triune.graph.weight_files import WeightFile
from triune.graph.weights import Large, NoneLarge

__all__ = ["Report", "ane_layout"]

_TO_CONVOLUTIONS: Sequence[type[LayoutPass]] = (
    # NanGuards, KnownShapes and WithoutReshapes bring linear layers and attention into forms that later passes find.
    NanGuards,
    KnownShapes,
    WithoutReshapes,
    LinearToConv,
)
"""If none of these passes converts a linear layer to a convolution, the model is not changed."""

_LAYOUT: Sequence[type[LayoutPass]] = (
    # Run Cancel first: it removes the Transposes between two convolutions, with which the passes below would find no
    # pattern.
    Cancel,
    # Rope works on all heads at once, so that it must run before SplitHeads, which separates them.
    Rope,
    SplitHeads,
    ChannelNorm,
    # Layout runs for the operators between linear layers, attention and norms.
    Layout,
    Cancel,
    # Layout and Cancel run again, for nodes next to those that the passes above moved to (B, C, 1, S).
    Layout,
    Cancel,
)


def ane_layout(
    model: ModelProto,
    report: Report | None = None,
    *,
    check: Mapping[str, NDArray[Any]] | None = None,
    file: WeightFile | None = None,
) -> ModelProto:
    """Rewrite a transformer so that it computes on (B, C, 1, S), the Neural Engine's layout.

    Args:
        model: normalized (`normalize`): core ops, constants as initializers, shapes inferred. Not changed.
        report: records the nodes that were changed, and those that resemble a pattern but were left, with the reason.
        check: inputs on which ONNX's reference evaluator computes the model before and after every pass, to compare the
            outputs. It is slow: meant for tests and for debugging.
        file: the scratch file for new large weights; without it they are stored in the model.

    Returns:
        a model of core operators with the same inputs and outputs. A model without linear layers of (B, S, C) is
        returned as it was.

    Raises:
        InternalError: a pass changed what the model computes (only with `check`).
    """
    report = report or Report()
    watch = None if check is None else Check(model, check)
    large = Large(file) if check is None else NoneLarge()
    copy = ModelProto()
    copy.CopyFrom(model)
    large.take(copy)
    before, num_before = ModelProto(), len(report.changed)
    before.CopyFrom(copy)
    num_layers = report.num_layers
    copy = run_passes(copy, [_Tidied(kind(report, large), report) for kind in _TO_CONVOLUTIONS], watch)
    if report.num_layers > num_layers:
        copy = run_passes(copy, [_Tidied(kind(report, large), report) for kind in _LAYOUT], watch)
    else:
        del report.changed[num_before:]
        copy = before
    large.give_back(copy)
    return copy


class _Tidied(GraphPass):
    """Wraps a pass: runs it and, if it changed the model, removes unused nodes and infers shapes."""

    def __init__(self, inner: LayoutPass, report: Report) -> None:
        """`report` must be the report to which `inner` adds its changes: if it grew, the pass changed the model."""
        self.name = inner.name
        self._inner = inner
        self._report = report

    def __call__(self, model: ModelProto) -> ModelProto:
        """Run the wrapped pass over `model`. If the pass changed it, remove unused nodes and infer shapes again."""
        num_changes = len(self._report.changed)
        result = self._inner(model)
        return Infer()(Tidy()(result)) if len(self._report.changed) > num_changes else result
