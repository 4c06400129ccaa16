"""The memory layout that is fastest on Apple's Neural Engine, for graphs of transformers.

Exporters write a transformer's activations as (B, S, C): batch, steps of the sequence, channels. The Neural Engine
computes convolutions of images, and its last axis is contiguous and padded to 64 bytes. So the same values are better
(B, C, 1, S): an image of height 1 whose width is the sequence. Apple published the rules ("Deploying Transformers on
the Apple Neural Engine", machinelearning.apple.com, 2022, and the repository apple/ml-ane-transformers). Each is a
pass:

- `NanGuards`: no test for NaN after a Softmax, whose mask tells where they would be.
- `KnownShapes`: known sizes of Reshapes become constants.
- `WithoutReshapes`: no Reshapes around a Softmax, nor around a Transpose of the last two axes.
- `LinearToConv`: a linear layer is a 1x1 convolution.
- `Rope`: rotary position embeddings of all heads at once.
- `SplitHeads`: attention head by head, with operands (B, width, 1, S).
- `ChannelNorm`: layer normalization over axis 1.
- `Layout`: the operators between these compute in the layout too.
- `Cancel`: Transposes that undo each other are removed. Then `Layout` again: the neighbours of what is in the layout by
  now may follow.

Masks stay as they are here; where the program is to compute in fp16, `graph.half` brings them within it.

After every pass the graph computes the same, with Transposes where values enter and leave the layout (`borders`). The
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
    # These three write linear layers and attention in the forms that the others know.
    NanGuards,
    KnownShapes,
    WithoutReshapes,
    LinearToConv,
)
"""Without a linear layer that becomes a convolution there is no layout, and the model stays as it was."""

_LAYOUT: Sequence[type[LayoutPass]] = (
    # Two layers in a row have Transposes between them that hide what the layers make.
    Cancel,
    # Rope before SplitHeads, which parts what Rope turns for all heads at once.
    Rope,
    SplitHeads,
    ChannelNorm,
    # What lies between the patterns.
    Layout,
    Cancel,
    # What is in the layout by now may draw more into it.
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
    """The same model in the Neural Engine's layout.

    Args:
        model: normalized (`normalize`): core ops, constants as initializers, shapes inferred. Not changed.
        report: told what was changed, and what was left and why.
        check: inputs on which the model is computed before and after every pass, by ONNX's reference evaluator. Slow:
            for tests and for doubts.
        file: takes large weights that are made; without it they are in the model.

    Returns:
        a model of core ops with the same inputs and outputs. One without linear layers of (B, S, C) is as it was.

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
    """Given what a pass of the layout is given. Result: its own, tidied and with shapes inferred where it changed."""

    def __init__(self, inner: LayoutPass, report: Report) -> None:
        """`report` is the one that `inner` writes."""
        self.name = inner.name
        self._inner = inner
        self._report = report

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`."""
        num_changes = len(self._report.changed)
        result = self._inner(model)
        return Infer()(Tidy()(result)) if len(self._report.changed) > num_changes else result
