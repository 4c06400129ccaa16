"""The precision in which a program computes."""

import contextlib
from collections.abc import Collection, Generator
from typing import Any

import coremltools
from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource
from onnx import NodeProto

from triune.coreml.lowering.mb import mb
from triune.coreml.lowering.options import LowerOptions
from triune.graph.conversion.options import Precision

_KEPT = "fp32"
"""Marks the ops of what the user keeps in fp32."""

_WIDE = "wide"
"""Marks the ops of what fp16 cannot compute."""

_MARK: Any = ScopeSource.EXIR_STACK_TRACE

_FUSED = frozenset({"layer_norm", "instance_norm", "batch_norm", "gelu", "softplus"})
"""Operations that passes put in place of several: within one of them nothing is rounded to fp16, but what it reads."""


@contextlib.contextmanager
def kept_scope(node: NodeProto, options: LowerOptions, wide: Collection[str]) -> Generator[None]:
    """Marks the ops of a node that is to compute in fp32; the passes carry the mark on to what they make of them."""
    marks: list[str] = []
    if options.keep_fp32 & {node.name, node.op_type}:
        marks.append(_KEPT)
    if any(name in wide for name in node.output if name):
        marks.append(_WIDE)
    if not marks:
        yield
        return
    with _marked(marks):
        yield


def as_given() -> contextlib.AbstractContextManager[None]:
    """Marks what gives an input the shape of the graph's: in fp32, as it is given, to all that computes in fp32."""
    return _marked([_WIDE])


@contextlib.contextmanager
def _marked(marks: list[str]) -> Generator[None]:
    info: Any = ScopeInfo(source=_MARK, data=marks)
    with mb.scope(info):
        yield


def is_kept(op: Any) -> bool:
    """Is it to compute in fp32?"""
    marks: list[str] = op.scopes.get(_MARK) or []
    return _KEPT in marks or (_WIDE in marks and (op.op_type not in _FUSED or _is_of_kept(op)))


def _is_of_kept(op: Any) -> bool:
    """Does it read what an operation in fp32 makes?"""
    maker = op.x.op
    return maker is not None and is_kept(maker)


def compute_precision(options: LowerOptions) -> Any:
    """What `coremltools.convert` takes as `compute_precision`."""
    library: Any = coremltools
    if options.precision is Precision.FP32:
        return library.precision.FLOAT32

    def is_free(op: Any) -> bool:
        return not is_kept(op)

    return library.transform.FP16ComputePrecision(op_selector=is_free)
