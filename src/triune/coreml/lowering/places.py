"""Elements ordered, and the places where something holds."""

import numpy as np

from triune.coreml.lowering.binary import negative_from_end
from triune.coreml.lowering.broadcast import select
from triune.coreml.lowering.context import Context, Lowering, Refusal, is_bool, is_float
from triune.coreml.lowering.mb import Var, mb
from triune.coreml.lowering.options import Target
from triune.graph.axes import positive


def _top_k(c: Context) -> None:
    x = c.input(0)
    k = c.ints(1, "the number of elements that TopK picks")[0]
    axis = positive(int(c.attributes.get("axis", -1)), x.rank)
    is_smallest = not c.attributes.get("largest", 1)
    values, indices = mb.topk(x=x, k=k, axis=axis, ascending=is_smallest)
    c.give(values)
    c.give(indices, 1)


def _one_hot(c: Context) -> None:
    """Where the number of the place equals the index. Indices out of range match nothing, as ONNX has it."""
    indices = c.input(0)
    depth = int(c.known(1, "the depth of OneHot").reshape(-1)[0])
    axis = positive(int(c.attributes.get("axis", -1)), indices.rank + 1)
    if is_float(indices):
        indices = mb.cast(x=indices, dtype="int32")
    indices = negative_from_end(indices, depth)
    form = [1] * (indices.rank + 1)
    form[axis] = depth
    places = np.reshape(np.arange(depth, dtype=np.int32), form)
    hits = mb.equal(x=mb.expand_dims(x=indices, axes=[axis]), y=places)
    off, on = mb.split(x=c.input(2), split_sizes=[1, 1], axis=0)
    c.give(select(hits, *(mb.squeeze(x=each, axes=[0]) for each in (on, off))))


def _non_zero(c: Context) -> None:
    x = c.input(0)
    if x.rank == 0:
        raise Refusal("the places of a scalar; reshape it to [1]")
    if is_bool(x):
        x = mb.cast(x=x, dtype="int32")
    c.give(mb.transpose(x=mb.non_zero(x=x), perm=[1, 0]))


def _reverse_sequence(c: Context) -> None:
    """By gathering: at a place before its row's length the mirrored place, else the place itself."""
    x, lengths = c.input(0), c.input(1)
    time = int(c.attributes.get("time_axis", 0))
    batch = int(c.attributes.get("batch_axis", 1))
    c.give(reverse_sequence(x, lengths, time, batch))


def reverse_sequence(x: Var, lengths: Var, time: int, batch: int) -> Var:
    """The first `lengths` elements of each batch row reversed along `time`."""
    return mb.reverse_sequence(x=x, lengths=lengths, seq_axis=time, batch_axis=batch)


def _depth_to_space(c: Context) -> None:
    x, block = c.input(0), int(c.attributes["blocksize"])
    if not is_float(x):
        raise Refusal("DepthToSpace of whole numbers; cast them to FLOAT")
    if c.attributes.get("mode", "DCR") == "CRD":
        c.give(mb.pixel_shuffle(x=x, upscale_factor=block))
    elif block == 1:
        c.give(x)
    else:
        c.give(mb.depth_to_space(x=x, block_size=block))


def _space_to_depth(c: Context) -> None:
    x, block = c.input(0), int(c.attributes["blocksize"])
    if not is_float(x):
        raise Refusal("SpaceToDepth of whole numbers; cast them to FLOAT")
    mode = c.attributes.get("mode", "DCR")
    if block == 1:
        c.give(x)
    elif mode == "DCR":
        c.give(mb.space_to_depth(x=x, block_size=block))
    elif mode == "CRD" and c.target.value >= Target.IOS16.value:
        c.give(mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(block)))
    else:
        raise Refusal(f"SpaceToDepth in mode {mode}; give --target iOS16 or later")


TABLE: dict[str, Lowering] = {
    "TopK": _top_k,
    "OneHot": _one_hot,
    "NonZero": _non_zero,
    "ReverseSequence": _reverse_sequence,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
