"""Mark the operations that stay in fp32 when a program is cast to fp16."""

import contextlib
from collections.abc import Collection, Generator
from typing import Any

import coremltools
from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource
from onnx import NodeProto

from triune.coreml.lowering.mb import mb
from triune.coreml.lowering.options import LowerOptions
from triune.graph.conversion.options import Precision
from triune.graph.half.states import carries_state
from triune.graph.passes.halve import ALWAYS_FP32

_KEPT = "fp32"
"""The mark of operations that compute in fp32 because the user asked for it (`--keep-fp32`), or because they belong to
a recurrent layer or a Loop that carries floats from step to step.
"""

_WIDE = "wide"
"""The mark of operations whose values fp16 cannot represent."""

_MARK: Any = ScopeSource.EXIR_STACK_TRACE

_FUSED = frozenset({"layer_norm", "instance_norm", "batch_norm", "gelu", "softplus"})
"""Operations into which passes fuse several marked operations. Inside such an operation nothing is rounded to fp16,
only its operands are, so that it needs fp32 only if its operand `x` is computed in fp32.
"""

_NORMS = frozenset({"LayerNormalization", "InstanceNormalization", "BatchNormalization"})
"""Nodes that become one normalization operation each. If fp16 cannot represent their values, this operation is kept in
fp32: its operands, or its results, would be wrong in fp16.
"""


@contextlib.contextmanager
def marked_for_fp32(node: NodeProto, options: LowerOptions, wide: Collection[str]) -> Generator[None]:
    """A context in which a node is lowered: it marks the operations if the node must compute in fp32.

    Passes keep the mark.

    Args:
        node: the node.
        options: the options; `keep_fp32` has names and types of nodes that the user wants in fp32.
        wide: the values that fp16 cannot represent.
    """
    marks: list[str] = []
    is_wide = node.op_type in ALWAYS_FP32 or any(name in wide for name in node.output if name)
    # A comparison showed that a node of `options.wide` is wrong in fp16 itself, not only its operands.
    is_blamed = not options.wide.isdisjoint(node.output)
    is_named = bool(options.keep_fp32 & {node.name, node.op_type})
    is_carrier = options.fits_half and carries_state(node)
    if is_blamed or is_named or is_carrier or (is_wide and node.op_type in _NORMS):
        marks.append(_KEPT)
    if is_wide:
        marks.append(_WIDE)
    if not marks:
        yield
        return
    with _marked(marks):
        yield


def in_fp32() -> contextlib.AbstractContextManager[None]:
    """A context that marks operations to compute in fp32, so that their operands are not rounded to fp16."""
    return _marked([_WIDE])


@contextlib.contextmanager
def _marked(marks: list[str]) -> Generator[None]:
    info: Any = ScopeInfo(source=_MARK, data=marks)
    with mb.scope(info):
        yield


def is_kept(op: Any) -> bool:
    """Whether an operation must compute in fp32."""
    marks: list[str] = op.scopes.get(_MARK) or []
    return _KEPT in marks or (_WIDE in marks and (op.op_type not in _FUSED or _is_of_kept(op)))


def _is_of_kept(op: Any) -> bool:
    """Whether the operand `x` of an operation is computed in fp32."""
    maker = op.x.op
    return maker is not None and is_kept(maker)


def compute_precision(options: LowerOptions) -> Any:
    """The value of coremltools' option `compute_precision`."""
    library: Any = coremltools
    if options.precision is Precision.FP32:
        return library.precision.FLOAT32

    def may_be_fp16(op: Any) -> bool:
        return not is_kept(op)

    return library.transform.FP16ComputePrecision(op_selector=may_be_fp16)
