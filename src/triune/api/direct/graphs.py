"""The ONNX graphs of direct work, each of one operator. Sizes are free unless the `Work` has shapes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, helper

from triune.api.direct.arrays import ELEMENTS
from triune.core.units import Unit

_OPSET = 21
_IR_VERSION = 10


@dataclass(frozen=True, slots=True)
class Work:
    """An operation on arrays of one dtype. Equal work runs by one executable.

    Attributes:
        op: "MatMul" or "Conv".
        dtype: "fp32", "fp16", "bf16" or "int8".
        ranks: the rank of each operand.
        shapes: the shape of each operand; empty for an operand whose sizes may vary.
        attributes: the operator's attributes, sorted by name.
    """

    op: str
    dtype: str
    ranks: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...] = ()
    attributes: tuple[tuple[str, tuple[int, ...] | int], ...] = ()
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compute the hash once, since every call looks up its executable, and small products take few microseconds."""
        object.__setattr__(self, "_hash", hash((self.op, self.dtype, self.ranks, self.shapes, self.attributes)))

    def __hash__(self) -> int:
        return self._hash


def graph_of(work: Work, unit: Unit) -> ModelProto:
    """The ONNX model of `work`: inputs "x0", "x1" and so on, output "y" of the same dtype, INT32 for int8.

    bf16 on `cpu` is computed in fp32, since ONNX Runtime has no product of bf16.
    """
    names = [f"x{at}" for at in range(len(work.ranks))]
    element = ELEMENTS[work.dtype]
    result = TensorProto.INT32 if work.dtype == "int8" else element
    attributes: dict[str, Any] = dict(work.attributes)
    nodes: list[NodeProto]
    if work.dtype == "int8":
        nodes = [helper.make_node(f"{work.op}Integer", names, ["y"], **attributes)]
    elif work.dtype == "bf16" and unit is Unit.CPU:
        wide = [f"{name} in fp32" for name in names]
        nodes = [helper.make_node("Cast", [a], [b], to=TensorProto.FLOAT) for a, b in zip(names, wide, strict=True)]
        nodes.append(helper.make_node(work.op, wide, ["y in fp32"], **attributes))
        nodes.append(helper.make_node("Cast", ["y in fp32"], ["y"], to=element))
    else:
        nodes = [helper.make_node(work.op, names, ["y"], **attributes)]
    graph = helper.make_graph(
        nodes,
        work.op,
        [helper.make_tensor_value_info(name, element, _dims(work, at)) for at, name in enumerate(names)],
        [helper.make_tensor_value_info("y", result, [None] * max(work.ranks))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def _dims(work: Work, at: int) -> Sequence[int | str]:
    fixed = work.shapes[at] if work.shapes else ()
    return fixed or [f"x{at} axis {axis}" for axis in range(work.ranks[at])]
