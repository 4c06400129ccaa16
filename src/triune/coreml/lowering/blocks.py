"""Lowering of DepthToSpace and SpaceToDepth."""

import numpy as np

from triune.coreml.lowering.context import Context, Lowering, Refusal, is_float
from triune.coreml.lowering.mb import mb
from triune.coreml.lowering.options import Target


def _depth_to_space(c: Context) -> None:
    x, block = c.input(0), int(c.attributes["blocksize"])
    if not is_float(x):
        raise Refusal("DepthToSpace of integers; cast them to FLOAT")
    if c.attributes.get("mode", "DCR") == "CRD":
        c.give(mb.pixel_shuffle(x=x, upscale_factor=block))
    elif block == 1:
        c.give(x)
    else:
        c.give(mb.depth_to_space(x=x, block_size=block))


def _space_to_depth(c: Context) -> None:
    x, block = c.input(0), int(c.attributes["blocksize"])
    if not is_float(x):
        raise Refusal("SpaceToDepth of integers; cast them to FLOAT")
    mode = c.attributes.get("mode", "DCR")
    if block == 1:
        c.give(x)
    elif mode == "DCR":
        c.give(mb.space_to_depth(x=x, block_size=block))
    elif mode == "CRD" and c.target.value >= Target.IOS16.value:
        c.give(mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(block)))
    else:
        raise Refusal(f"SpaceToDepth in mode {mode}; give --target iOS16 or later")


TABLE: dict[str, Lowering] = {"DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth}
