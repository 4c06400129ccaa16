"""Rules for operators whose attributes became inputs."""

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from triune.graph.decompose.context import Context
from triune.graph.passes.upgrade.rule import Rule, rank_of, required, rewrite, typed

_LIMIT = float(np.finfo(np.float32).max)
"""The default limit of an old Clip. The new Clip leaves the limit out instead, which is right for every element
type.
"""


def _axes(c: Context) -> None:
    """Upgrade reductions, Squeeze and Unsqueeze: the attribute `axes` becomes an input."""
    axes = c.attributes.get("axes", [])
    rewrite(c, [c.input(0), c.build.ints(*axes)] if axes else [c.input(0)], without=["axes"])


def _split(c: Context) -> None:
    sizes = c.attributes.get("split", [])
    if c.input(1):
        rewrite(c, axis=c.attributes.get("axis", 0))
    elif sizes:
        rewrite(c, [c.input(0), c.build.ints(*sizes)], without=["split"], axis=c.attributes.get("axis", 0))
    else:
        rewrite(c, without=["split"], axis=c.attributes.get("axis", 0), num_outputs=len(c.node.output))


def _slice(c: Context) -> None:
    starts, ends = required(c, "starts"), required(c, "ends")
    axes = c.attributes.get("axes") or range(len(starts))
    inputs = [c.input(0), c.build.ints(*starts), c.build.ints(*ends), c.build.ints(*axes)]
    rewrite(c, inputs, without=["starts", "ends", "axes"])


def _pad(c: Context) -> None:
    pads = c.attributes.get("paddings") or required(c, "pads")
    inputs = [c.input(0), c.build.ints(*pads)]
    if c.attributes.get("mode", "constant") == "constant":
        inputs.append(typed(c, c.attributes.get("value", 0.0), c.input(0)))
    rewrite(c, inputs, without=["paddings", "pads", "value"])


def _top_k(c: Context) -> None:
    rewrite(c, [c.input(0), c.build.ints(required(c, "k"))], without=["k"])


def _clip(c: Context) -> None:
    low, high = c.attributes.get("min", -_LIMIT), c.attributes.get("max", _LIMIT)
    lower = "" if low <= -_LIMIT else typed(c, low, c.input(0))
    upper = "" if high >= _LIMIT else typed(c, high, c.input(0))
    rewrite(c, [c.input(0), lower, upper], without=["min", "max", "consumed_inputs"])


def _reshape(c: Context) -> None:
    target = c.build.ints(*required(c, "shape"))
    rewrite(c, [c.input(0), target], without=["shape", "consumed_inputs"])


def _tile(c: Context) -> None:
    """Upgrade Tile: an old Tile repeats along one axis; its inputs are the data, the count and the axis."""
    rank = rank_of(c, c.input(0))
    ones = c.build.ints(1)
    axis = c.build.op("Reshape", c.build.cast(c.input(2), TensorProto.INT64), ones)
    count = c.build.op("Reshape", c.build.cast(c.input(1), TensorProto.INT64), ones)
    is_axis = c.build.op("Equal", c.build.ints(*range(rank)), axis)
    rewrite(c, [c.input(0), c.build.op("Where", is_axis, count, ones)])


def _dropout(c: Context) -> None:
    """Upgrade Dropout. In operator sets 7 to 11 it only does inference. Before 7, `is_test = 0` means training.

    Exporters for inference leave `is_test` out. So its default is taken to be 1, although ONNX says 0.
    """
    given = [c.input(0)]
    if not c.attributes.get("is_test", 1):
        given += [c.build.constant(c.attributes.get("ratio", 0.5), np.float32), c.build.constant(True, np.bool_)]
    rewrite(c, given, without=["ratio", "is_test", "consumed_inputs"])
    mask = c.output(1)
    if mask and c.values.elem_type(mask) not in (0, TensorProto.BOOL):
        # Cast the mask: until operator set 10 it had the type of the data.
        c.build.nodes[-1].output[1] = c.build.name()
        c.build.put("Cast", [c.build.nodes[-1].output[1]], [mask], to=c.values.elem_type(mask))


def _dft(c: Context) -> None:
    axis = c.build.constant(c.attributes.get("axis", 1), np.int64)
    rewrite(c, [c.input(0), c.input(1), axis], without=["axis"])


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

TABLE: Mapping[str, tuple[int, Rule]] = {
    **{f"Reduce{name}": (18, _axes) for name in _REDUCTIONS},
    "ReduceSum": (13, _axes),
    "Squeeze": (13, _axes),
    "Unsqueeze": (13, _axes),
    "Split": (18, _split),
    "Slice": (10, _slice),
    "Pad": (11, _pad),
    "TopK": (10, _top_k),
    "Clip": (11, _clip),
    "Reshape": (5, _reshape),
    "Tile": (6, _tile),
    "Dropout": (12, _dropout),
    "DFT": (20, _dft),
}
