"""Rules for operators whose attributes had other names, types or defaults in older operator sets."""

from collections.abc import Mapping

from onnx import TensorProto

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.decompose.context import Context
from triune.graph.passes.upgrade.rule import Rule, required, rewrite


def _cast(c: Context) -> None:
    name = str(required(c, "to")).upper()
    try:
        rewrite(c, to=TensorProto.DataType.Value(name))
    except ValueError as error:
        raise InvalidArgumentError(f"it casts to '{name}', which is not an element type of ONNX") from error


def _concat(c: Context) -> None:
    rewrite(c, axis=c.attributes.get("axis", 1))


def _selu(c: Context) -> None:
    alpha, gamma = c.attributes.get("alpha", 1.6732), c.attributes.get("gamma", 1.0507)
    rewrite(c, without=["consumed_inputs"], alpha=alpha, gamma=gamma)


def _lp(c: Context) -> None:
    power = float(c.attributes.get("p", 2.0))
    if not power.is_integer():
        raise UnsupportedError(f"its norm is of the power {power:g}; operator sets from 2 on have only integer powers")
    rewrite(c, p=int(power))


def _recurrent(c: Context) -> None:
    """Upgrade RNN, GRU and LSTM: drop `output_sequence`, and correct the direction that was spelt "foward"."""
    direction = c.attributes.get("direction", "forward").replace("foward", "forward")
    rewrite(c, without=["output_sequence"], direction=direction)


def _grid_sample(c: Context) -> None:
    mode = c.attributes.get("mode", "bilinear")
    rewrite(c, mode={"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))


def _roi_align(c: Context) -> None:
    rewrite(c, coordinate_transformation_mode="output_half_pixel")


def _scatter(c: Context) -> None:
    rewrite(c, op_type="ScatterElements")


TABLE: Mapping[str, tuple[int, Rule]] = {
    "Cast": (6, _cast),
    "Concat": (4, _concat),
    "Selu": (6, _selu),
    "LpPool": (2, _lp),
    "GlobalLpPool": (2, _lp),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), (7, _recurrent)),
    "GridSample": (20, _grid_sample),
    "RoiAlign": (16, _roi_align),
    "Scatter": (11, _scatter),
}
