"""The precision in which a program computes."""

import contextlib
from collections.abc import Generator
from typing import Any

import coremltools
from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource
from onnx import NodeProto

from triune.coreml.lowering.mb import mb
from triune.coreml.lowering.options import LowerOptions
from triune.graph.conversion.options import Precision

_KEPT = "fp32"
_MARK: Any = ScopeSource.EXIR_STACK_TRACE


@contextlib.contextmanager
def kept_scope(node: NodeProto, options: LowerOptions) -> Generator[None]:
    """Marks the ops of a node that is to compute in fp32; the passes carry the mark on to what they make of them."""
    if not options.keep_fp32 & {node.name, node.op_type}:
        yield
        return
    info: Any = ScopeInfo(source=_MARK, data=[_KEPT])
    with mb.scope(info):
        yield


def is_kept(op: Any) -> bool:
    """Is it to compute in fp32?"""
    return _KEPT in (op.scopes.get(_MARK) or [])


def compute_precision(options: LowerOptions) -> Any:
    """What `coremltools.convert` takes as `compute_precision`."""
    library: Any = coremltools
    if options.precision is Precision.FP32:
        return library.precision.FLOAT32
    if options.precision is Precision.FP16:
        return library.precision.FLOAT16

    def is_free(op: Any) -> bool:
        return not is_kept(op)

    return library.transform.FP16ComputePrecision(op_selector=is_free)
