"""Functions that write nodes with fewer axes than they have in the graph, one for each operator. They write through
`Views`.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from onnx import NodeProto

from triune.coreml.lowering.deep.groups import Sizes, fewest, of_runs, parted, permuted_runs, product, runs
from triune.coreml.lowering.deep.views import TooManyAxesError, Views
from triune.graph.axes import positive
from triune.graph.values import attributes_of

Rule: TypeAlias = Callable[[NodeProto, Views], None]
"""A function that writes a node with fewer axes. It raises TooManyAxesError if too many axes are needed or are free."""


def _reshape(node: NodeProto, views: Views) -> None:
    views.give(views.flat(node.input[0]), node.output[0])


def _transpose(node: NodeProto, views: Views) -> None:
    sizes = views.sizes(node.input[0])
    perm = list(attributes_of(node).get("perm", range(len(sizes) - 1, -1, -1)))
    groups, order = permuted_runs(sizes, perm)
    blocks = list(of_runs(groups, sizes))
    if not blocks:
        _reshape(node, views)
        return
    if len(blocks) <= views.most:
        x = views.view(node.input[0], tuple(blocks))
        views.copy(node, [x], tuple(blocks[each] for each in order), perm=order)
        return
    # Move one block at a time to its new place, by a Transpose of four axes: all blocks before the new place, joined;
    # the blocks that it passes, joined; the block itself; and all blocks behind it, joined.
    x, places = views.flat(node.input[0]), list(range(len(blocks)))
    for target, each in enumerate(order):
        at = places.index(each)
        if at == target:
            continue
        cuts = (0, target, at, at + 1, len(places))
        around = [product([blocks[place] for place in places[begin:end]]) for begin, end in pairwise(cuts)]
        if around.count(None) > 1:
            raise TooManyAxesError
        x = views.op("Transpose", [views.op("Reshape", [x, views.vector(around)])], perm=[0, 2, 1, 3])
        places.insert(target, places.pop(at))
    views.give(x, node.output[0])


def _elementwise(node: NodeProto, views: Views) -> None:
    """Write an operator whose operands are broadcast: neighbouring axes along which the same operands are broadcast are
    joined.
    """
    whole = views.sizes(node.output[0])
    operands = [_padded(views.sizes(name), len(whole)) if name else None for name in node.input]
    for axis, size in enumerate(whole):
        free = [
            name for name, each in zip(node.input, operands, strict=True) if each is not None and each[axis] is None
        ]
        others = any(each is not None and each[axis] not in (None, 1) for each in operands)
        if free and (others or size is not None or not views.are_equal(free, axis - len(whole))):
            # Refuse: it is not known which operands have the size of the result on this axis, and which have size 1.
            raise TooManyAxesError
    marks = [tuple(each is not None and each[axis] == 1 for each in operands) for axis in range(len(whole))]
    groups = runs(marks, whole)
    inputs: list[str] = []
    for name, sizes in zip(node.input, operands, strict=True):
        is_one = sizes is None or not views.sizes(name)
        inputs.append(name if is_one or sizes is None else views.view(name, of_runs(groups, sizes) or (1,)))
    views.copy(node, inputs, of_runs(groups, whole) or (1,))


def _padded(sizes: Sizes, rank: int) -> Sizes:
    return (*[1] * (rank - len(sizes)), *sizes)


def _unary(node: NodeProto, views: Views) -> None:
    """Write an element-wise operator of one tensor, whose other operands are single numbers, such as Clip's limits."""
    if any(views.sizes(name) not in ((), (1,)) for name in list(node.input)[1:] if name):
        raise TooManyAxesError
    sizes = fewest(views.sizes(node.input[0]), views.most)
    views.copy(node, [views.view(node.input[0], sizes), *list(node.input)[1:]], sizes)


def _expand(node: NodeProto, views: Views) -> None:
    whole = views.sizes(node.output[0])
    sizes = _padded(views.sizes(node.input[0]), len(whole))
    groups = runs([size == 1 for size in sizes], whole)
    target = [1 if given is None else size for given, size in zip(sizes, whole, strict=True)]
    wanted = of_runs(groups, tuple(target)) or (1,)
    if None in wanted or any(None in (sizes[axis] for axis in group) and len(group) > 1 for group in groups):
        raise TooManyAxesError
    x = views.view(node.input[0], of_runs(groups, sizes) or (1,))
    views.copy(node, [x, views.vector(wanted)], of_runs(groups, whole) or (1,))


def _reduce(node: NodeProto, views: Views) -> None:
    sizes, attributes = views.sizes(node.input[0]), attributes_of(node)
    axes = views.ints(node, 1)
    if not axes:
        if attributes.get("noop_with_empty_axes", 0):
            raise TooManyAxesError
        axes = list(range(len(sizes)))
    reduced = [axis in {positive(each, len(sizes)) for each in axes} for axis in range(len(sizes))]
    groups = runs(reduced, sizes)
    gone = [place for place, group in enumerate(groups) if reduced[group[0]]]
    if not gone:
        _reshape(node, views)
        return
    x = views.view(node.input[0], of_runs(groups, sizes))
    kept = of_runs([group for place, group in enumerate(groups) if place not in gone], sizes)
    views.copy(node, [x, views.constant(np.array(gone, np.int64))], kept, keepdims=0, noop_with_empty_axes=None)


def _along_axis(node: NodeProto, views: Views) -> None:
    """Write an operator that computes along one axis and keeps the shape, such as Softmax, with three axes: those
    before that axis joined, the axis itself, and those after it joined.
    """
    sizes = views.sizes(node.input[0])
    attributes = attributes_of(node)
    if node.op_type == "CumSum":
        (axis,) = views.ints(node, 1) or [0]
        three = parted(sizes, positive(axis, len(sizes)))
        views.copy(node, [views.view(node.input[0], three), views.constant(np.array(1, np.int64))], three)
        return
    three = parted(sizes, positive(int(attributes.get("axis", -1)), len(sizes)))
    views.copy(node, [views.view(node.input[0], three)], three, axis=1)


def _gather(node: NodeProto, views: Views) -> None:
    sizes, indices = views.sizes(node.input[0]), views.sizes(node.input[1])
    three = parted(sizes, positive(int(attributes_of(node).get("axis", 0)), len(sizes)))
    count = product(indices)
    taken = views.view(node.input[1], (count,))
    views.copy(node, [views.view(node.input[0], three), taken], (three[0], count, three[2]), axis=1)


def _gather_nd(node: NodeProto, views: Views) -> None:
    sizes, indices = views.sizes(node.input[0]), views.sizes(node.input[1])
    depth = indices[-1]
    if attributes_of(node).get("batch_dims", 0) or depth is None:
        raise TooManyAxesError
    rest = [product(sizes[depth:])] if depth < len(sizes) else []
    count = product(indices[:-1])
    inputs = [views.view(node.input[0], (*sizes[:depth], *rest)), views.view(node.input[1], (count, depth))]
    views.copy(node, inputs, (count, *rest))


def _slice(node: NodeProto, views: Views) -> None:
    sizes = list(views.sizes(node.input[0]))
    starts, ends = views.ints(node, 1) or [], views.ints(node, 2) or []
    axes = views.ints(node, 3) or list(range(len(starts)))
    steps = views.ints(node, 4) or [1] * len(starts)
    x = views.flat(node.input[0])
    for axis, *numbers in zip(axes, starts, ends, steps, strict=True):
        place = positive(axis, len(sizes))
        three = parted(tuple(sizes), place)
        size = sizes[place]
        if size is None or three.count(None) > 1:
            raise TooManyAxesError
        one = [views.constant(np.array([each], np.int64)) for each in (numbers[0], numbers[1], 1, numbers[2])]
        x = views.op("Slice", [views.op("Reshape", [x, views.vector(three)]), *one])
        sizes[place] = len(range(*_clamped(size, *numbers)))
        if sizes[place] == 0:
            raise TooManyAxesError
    views.give(x, node.output[0])


def _split(node: NodeProto, views: Views) -> None:
    sizes = views.sizes(node.input[0])
    axis = positive(int(attributes_of(node).get("axis", 0)), len(sizes))
    x = views.view(node.input[0], parted(sizes, axis))
    begin = 0
    for name in node.output:
        size = views.sizes(name)[axis]
        if size is None:
            raise TooManyAxesError
        one = [views.constant(np.array([each], np.int64)) for each in (begin, begin + size, 1)]
        views.give(views.op("Slice", [x, *one]), name)
        begin += size


def _clamped(size: int, start: int, end: int, step: int) -> tuple[int, int, int]:
    """The indices that a Slice takes of an axis of `size` elements, as the arguments (start, stop, step) of `range`."""
    return slice(start, end if end >= -size or step > 0 else None, step).indices(size)


def _concat(node: NodeProto, views: Views) -> None:
    whole = views.sizes(node.output[0])
    axis = positive(int(attributes_of(node)["axis"]), len(whole))
    inputs = [views.view(name, parted(views.sizes(name), axis)) for name in node.input]
    views.copy(node, inputs, parted(whole, axis), axis=1)


def _matmul(node: NodeProto, views: Views) -> None:
    x, y = (views.sizes(name) for name in node.input)
    whole = views.sizes(node.output[0])
    if len(x) < 2 or len(y) < 2:
        raise TooManyAxesError
    batch = (product(whole[:-2]), *whole[-2:])
    if len(y) == 2:
        inputs = [views.view(node.input[0], (product(x[:-2]), *x[-2:])), node.input[1]]
    elif x[:-2] == y[:-2] and None not in x[:-2]:
        inputs = [views.view(name, (product(s[:-2]), *s[-2:])) for name, s in zip(node.input, (x, y), strict=True)]
    else:
        inputs, batch = _broadcast_matmul(node, views, x, y, whole)
    views.copy(node, inputs, batch)


def _broadcast_matmul(node: NodeProto, views: Views, x: Sizes, y: Sizes, whole: Sizes) -> tuple[Sequence[str], Sizes]:
    """Build the operands of a MatMul that is broadcast along some batch axes: neighbouring axes along which the same
    operand is broadcast are joined. Returns the operands' names, and the sizes of the MatMul's result.

    `x` and `y` are the operands' shapes and `whole` the result's, before axes are joined.
    """
    rank = len(whole) - 2
    both = [_padded(each[:-2], rank) for each in (x, y)]
    if any(None in each for each in both):
        raise TooManyAxesError
    groups = runs([tuple(each[axis] == 1 for each in both) for axis in range(rank)], whole[:-2])
    inputs = [
        views.view(name, (*of_runs(groups, batch), *sizes[-2:]))
        for name, batch, sizes in zip(node.input, both, (x, y), strict=True)
    ]
    return inputs, (*of_runs(groups, whole[:-2]), *whole[-2:])


_OF_ONE = (
    *("Abs", "Acos", "Asin", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Log", "Neg", "Not"),
    *("Reciprocal", "Round", "Sigmoid", "Sign", "Sin", "Sinh", "Sqrt", "Tan", "Tanh", "Identity", "Cast", "Relu"),
    *("LeakyRelu", "Elu", "Softplus", "Softsign", "HardSigmoid", "Gelu", "Clip"),
)
_BROADCAST = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "And", "Or", "Xor", "Where", "PRelu"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
)

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(_OF_ONE, _unary),
    **dict.fromkeys(_BROADCAST, _elementwise),
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"), _reduce),
    **dict.fromkeys(("Softmax", "CumSum"), _along_axis),
    "Transpose": _transpose,
    "Expand": _expand,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "MatMul": _matmul,
}
"""The rules by operator. A node of any other operator cannot be written with fewer axes."""
