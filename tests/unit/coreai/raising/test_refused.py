"""Every operation that Apple's library knows is raised, or refused by its name."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from coreai._compiler.dialects import (
    _builtin_ops_gen,
    _coreai_ops_gen,
    _coreaix_ops_gen,
    _debuginfo_ops_gen,
    _udml_ops_gen,
)

from support.coreai_programs import Sample, add_graph, axis, fill, ints, numbers, ops, save
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreai.description import describe
from triune.coreai.library import authoring, ir
from triune.coreai.lowering.values import tensor_type
from triune.coreai.raising import raise_function
from triune.coreai.raising.control_flow import CONTROL_FLOW
from triune.coreai.raising.table import TABLE

DIALECTS: tuple[ModuleType, ...] = (
    _builtin_ops_gen,
    _coreai_ops_gen,
    _coreaix_ops_gen,
    _debuginfo_ops_gen,
    _udml_ops_gen,
)

# What holds operations, ends blocks of them, or is a value: raised with what it is part of.
STRUCTURE = {
    "builtin.module",
    "coreai.condition",
    "coreai.constant",
    "coreai.graph",
    "coreai.output",
    "coreai.yield",
    "udml.class",
    "udml.func",
    "udml.import",
    "udml.member",
    "udml.namespace",
    "udml.return",
}


def test_every_operation_of_the_dialects_is_known() -> None:
    kinds = [kind for module in DIALECTS for kind in vars(module).values() if isinstance(kind, type)]
    names = {kind.OPERATION_NAME for kind in kinds if hasattr(kind, "OPERATION_NAME")}
    known = {*TABLE, *CONTROL_FLOW}
    unknown = {name for name in names if name.removeprefix("coreai.").removeprefix("decomposable.") not in known}
    assert unknown == STRUCTURE


def _reduce(x: Any) -> Any:
    scalar = tensor_type([], np.float32)
    start = ops.constant(np.float32(0))
    reduced = _coreai_ops_gen.ReduceOp(tensor_type([2, 1], np.float32), x, ops.constant(ints(1)), start)
    fill(reduced.reduction, [scalar, scalar], lambda total, each: [ops.add(total, each)])
    return reduced.output


def _reduce_index(x: Any) -> Any:
    scalar = tensor_type([], np.float32)
    starts = ops.constant(np.float32(-np.inf)), ops.constant(np.uint32(0))
    reduced = _coreai_ops_gen.ReduceIndexOp(tensor_type([2, 1], np.uint32), x, ops.constant(axis(1)), *starts)
    fill(reduced.reduction, [scalar, scalar], lambda best, each: [ops.greater(each, best)])
    return reduced.output


def _placeholder(x: Any) -> Any:
    return _udml_ops_gen.placeholder([x.type], "other.thing", [x])


def _delegate(x: Any) -> Any:
    return _coreai_ops_gen.delegate([x.type], [x], "MPSGraph", ir.DenseI8ArrayAttr.get([1, 2]))


def _conversion(x: Any) -> Any:
    kind = tensor_type([2, 3], np.int32)
    return ir.Operation.create("builtin.unrealized_conversion_cast", [kind], [x]).result


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (_reduce, "coreai.reduce: .*reduce_sum"),
        (_reduce_index, "coreai.reduce_index: .*argmax"),
        (_placeholder, "udml.placeholder: .*own operations"),
        (_delegate, "coreai.delegate: .*raise the asset it is made of"),
        (_conversion, "builtin.unrealized_conversion_cast: .*own operations"),
    ],
)
def test_what_is_refused_is_named(build: Callable[[Any], Any], told: str) -> None:
    module = authoring.Module.create()
    with module:
        add_graph("main", ["x"], [tensor_type([2, 3], np.float32)], build)
    with pytest.raises(UnsupportedError, match=told):
        raise_function(authoring.AIProgram(module))


@pytest.mark.parametrize("build", [_reduce, _reduce_index])
def test_no_asset_holds_a_reduction_by_a_block(build: Callable[[Any], Any], tmp_path: Path) -> None:
    """1.0.0b3 saves what it dies of when it reads it. When this fails they can be raised, and judged."""
    path = save(Sample(build, {"x": numbers(2, 3)}), tmp_path / "m.aimodel")
    with pytest.raises(InvalidArgumentError, match="Apple's library was ended by SIGABRT"):
        describe(path)
