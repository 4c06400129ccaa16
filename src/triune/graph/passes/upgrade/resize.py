"""Rules that upgrade Resize and Upsample of operator sets before 11."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from triune.graph.decompose.context import Context
from triune.graph.passes.upgrade.rule import Rule, required, rewrite

_ASYMMETRIC = {"coordinate_transformation_mode": "asymmetric"}
"""The attributes of a Resize that reads element i of the result at coordinate i / scale of the operand."""


def _resize(c: Context) -> None:
    _write_resize(c, c.input(1))


def _upsample(c: Context) -> None:
    """Upgrade Upsample. The scales are an input in operator set 9, an attribute in 7 and 8, and two attributes
    before.
    """
    if c.input(1):
        _write_resize(c, c.input(1))
    elif "height_scale" in c.attributes:
        scales = [1.0, 1.0, required(c, "height_scale"), required(c, "width_scale")]
        _write_resize(c, c.build.constant(scales, np.float32))
    else:
        _write_resize(c, c.build.constant(required(c, "scales"), np.float32))


def _write_resize(c: Context, scales: str) -> None:
    if c.attributes.get("mode", "nearest") == "nearest":
        _nearest(c, scales)
    else:
        _rewrite(c, c.input(0), scales, mode="linear", **_ASYMMETRIC)


def _nearest(c: Context, scales: str) -> None:
    """Write a Resize to the nearest element: index i / scale is rounded down along axes that grow, up along others.

    This is what ONNX's own test cases of operator set 10 expect.
    """
    given = c.values.constant(scales)
    if given is None:
        given = _scale_attributes(c, scales)
    x = c.input(0)
    if given is not None and (given >= 1).all():
        _rewrite(c, x, scales, mode="nearest", nearest_mode="floor", **_ASYMMETRIC)
    elif given is not None and (given <= 1).all():
        _rewrite(c, x, scales, mode="nearest", nearest_mode="ceil", **_ASYMMETRIC)
    else:
        # Resize the axes that grow, then those that shrink.
        one = c.build.constant(1, np.float32)
        growing, shrinking = c.build.op("Max", scales, one), c.build.op("Min", scales, one)
        x = c.build.op("Resize", x, "", growing, mode="nearest", nearest_mode="floor", **_ASYMMETRIC)
        _rewrite(c, x, shrinking, mode="nearest", nearest_mode="ceil", **_ASYMMETRIC)


def _rewrite(c: Context, x: str, scales: str, **attributes: str) -> None:
    rewrite(
        c, [x, "", scales], op_type="Resize", without=["mode", "scales", "height_scale", "width_scale"], **attributes
    )


def _scale_attributes(c: Context, name: str) -> NDArray[np.float32] | None:
    """The scales if they are attributes; None if they are an input."""
    if c.input(1) == name:
        return None
    heights = [c.attributes.get("height_scale", 1.0), c.attributes.get("width_scale", 1.0)]
    return np.array(c.attributes.get("scales", heights), np.float32)


TABLE: Mapping[str, tuple[int, Rule]] = {"Resize": (11, _resize), "Upsample": (10, _upsample)}
