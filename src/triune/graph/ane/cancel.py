"""Remove Transposes, Squeezes and Unsqueezes that undo each other."""

from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from triune.graph.ane.layout_pass import LayoutPass
from triune.graph.axes import positive
from triune.graph.index import Dim, Index, label, perm_of, same_sizes

MOVES = ("Transpose", "Squeeze", "Unsqueeze", "Reshape")


@dataclass(frozen=True, slots=True)
class _View:
    """A value that has the elements of another value, its source, with axes permuted and axes of size 1 added or
    removed.

    Attributes:
        source: the name of the other value.
        axes: for each axis of the view, which axis of the source it is; None for a new axis of size 1. Axes of the
            source that do not occur have size 1 and are removed.
    """

    source: str
    axes: tuple[int | None, ...]

    @property
    def needs_transpose(self) -> bool:
        """Whether the source's axes are in another order, so that the view needs a Transpose."""
        order = [axis for axis in self.axes if axis is not None]
        return order != sorted(order)


class Cancel(LayoutPass):
    """Given chains of Transpose, Squeeze, Unsqueeze, and Reshapes that only add or remove axes of size 1.

    Result: each chain becomes at most a Squeeze, a Transpose and an Unsqueeze, and no node if it changes nothing. Equal
    chains are computed once. A Transpose that only moves axes of size 1 is replaced, too. A Reshape back to the shape
    before the previous Reshape is removed.
    """

    name = "cancel"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Remove Transposes, Squeezes and Unsqueezes that undo each other from `model`, in place.

        `Tidy` removes values that no node reads any more.
        """
        index = self._index(model.graph)
        views: dict[str, _View] = {}
        made: dict[_View, str] = {}
        renamed: dict[str, str] = {}
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            before = list(node.input)
            for position, name in enumerate(before):
                node.input[position] = renamed.get(name, name)
            view = _view(index, views, node) if node.op_type in MOVES else None
            if view is None:
                source = _reshaped_twice(index, node) if node.op_type == "Reshape" else None
                if source is not None:
                    index.learn(source, node.output[0])
                    self._report.change(self.name, label(node), "undone by the Reshape before")
                    renamed[node.output[0]] = source
                    nodes += self._named(index, source, node.output[0])
                else:
                    nodes.append(node)
                continue
            name = node.output[0]
            views[name] = view
            found = view.source if _is_identity(index, view) else made.get(view)
            if found is None and _is_worth_it(index, views, node, before[0], view):
                found = _make(index, view)
                nodes += index.take()
            if found is None:
                made[view] = name
                nodes.append(node)
                continue
            made[view] = renamed[name] = found
            index.learn(found, name)
            if found != view.source:
                views[found] = view
            nodes += self._named(index, found, name)
            self._report.change(self.name, label(node), f"merged into what makes '{found}'")
        index.replace(nodes)
        return model

    def _named(self, index: Index, found: str, name: str) -> list[NodeProto]:
        """Build an Identity that gives the value `found` the name `name`, if an output or a subgraph needs that name;
        else no node.
        """
        if not index.is_kept(name):
            return []
        index.build.put("Identity", [found], [name])
        return index.take()


def _view(index: Index, views: dict[str, _View], node: NodeProto) -> _View | None:
    """The result of a node as a `_View`; None if the node does more than permute axes and add or remove axes of size 1.

    If `views` has a view of the node's operand, its source is also that of the result.
    """
    x = node.input[0]
    dims = index.dims(x)
    if dims is None:
        return None
    given = views.get(x) or _View(x, tuple(range(len(dims))))
    axes = _axes_after(index, node, given.axes, dims)
    if axes is None:
        return None
    source = index.dims(given.source) or ()
    # An axis of size 1 counts as new (None): a Squeeze and an Unsqueeze move it without a Transpose.
    moved: list[int | None] = [axis if axis is not None and source[axis] != 1 else None for axis in axes]
    return _View(given.source, _with_axes_of_source(tuple(moved), source))


def _axes_after(
    index: Index, node: NodeProto, axes: tuple[int | None, ...], dims: tuple[Dim, ...]
) -> tuple[int | None, ...] | None:
    rank = len(axes)
    if node.op_type == "Transpose":
        return tuple(axes[position] for position in perm_of(node, rank))
    if node.op_type == "Reshape":
        return _axes_after_reshape(axes, dims, index.dims(node.output[0]))
    positions = index.ints(node, 1)
    if positions is None:
        return None
    if node.op_type == "Squeeze":
        dropped = {positive(position, rank) for position in positions}
        return tuple(axis for position, axis in enumerate(axes) if position not in dropped)
    added = {positive(position, rank + len(positions)) for position in positions}
    rest = iter(axes)
    return tuple(None if position in added else next(rest) for position in range(rank + len(positions)))


def _axes_after_reshape(
    axes: tuple[int | None, ...], dims: tuple[Dim, ...], result: tuple[Dim, ...] | None
) -> tuple[int | None, ...] | None:
    """The new `_View.axes` after a Reshape that only adds or removes axes of size 1; None after any other Reshape."""
    if result is None or not same_sizes([dim for dim in dims if dim != 1], [dim for dim in result if dim != 1]):
        return None
    rest = iter([axis for axis, dim in zip(axes, dims, strict=True) if dim != 1])
    return tuple(None if dim == 1 else next(rest) for dim in result)


def _with_axes_of_source(axes: tuple[int | None, ...], source: tuple[Dim, ...]) -> tuple[int | None, ...]:
    """Replace new axes (None) by axes of size 1 that the source has itself, where the order of axes allows it."""
    result = list(axes)
    unused = [axis for axis in range(len(source)) if axis not in axes]
    for position, axis in enumerate(result):
        if axis is not None:
            continue
        before = next((each for each in reversed(result[:position]) if each is not None), -1)
        after = next((each for each in result[position:] if each is not None), len(source))
        fitting = next((each for each in unused if before < each < after), None)
        if fitting is not None:
            result[position] = fitting
            unused.remove(fitting)
    return tuple(result)


def _is_identity(index: Index, view: _View) -> bool:
    return view.axes == tuple(range(index.rank(view.source) or 0))


def _is_worth_it(index: Index, views: dict[str, _View], node: NodeProto, x: str, view: _View) -> bool:
    """Whether computing a view from its source takes fewer or cheaper nodes than `node`, which computes it now."""
    before = views.get(node.input[0])
    if before is None:
        # There is no earlier node to merge with. Replace the Transpose only if it just moves axes of size 1.
        return node.op_type == "Transpose" and not view.needs_transpose
    if node.op_type == "Transpose":
        # Replace this Transpose if it merges with an earlier one, if none is needed any more, or if it moves before an
        # Unsqueeze.
        return before.needs_transpose or not view.needs_transpose or None in before.axes
    if before.needs_transpose and view.needs_transpose:
        # Replacing this node is worth it only if the Transpose before it disappears: if this node is the only reader.
        return _num_nodes(index, view) == 1 and index.only_reader(x) is not None
    return before.needs_transpose or _num_nodes(index, view) <= _num_nodes(index, before)


def _num_nodes(index: Index, view: _View) -> int:
    """The number of nodes that compute the view from its source."""
    num_own = sum(axis is not None for axis in view.axes)
    num_dropped, num_added = (index.rank(view.source) or 0) - num_own, len(view.axes) - num_own
    if view.needs_transpose:
        both = min(num_dropped, num_added)
        num_dropped, num_added = num_dropped - both, num_added - both
    return bool(num_dropped) + view.needs_transpose + bool(num_added)


def _make(index: Index, view: _View) -> str:
    """Build the nodes that compute the view from its source; returns the name of their result."""
    build, name = index.build, view.source
    rank = index.rank(name) or 0
    unused = [axis for axis in range(rank) if axis not in view.axes]
    axes = list(view.axes)
    if view.needs_transpose:
        # Where the view has a new axis of size 1, let the Transpose put one of the source's own axes of size 1, if one
        # is unused: this saves a Squeeze and an Unsqueeze.
        for position, axis in enumerate(axes):
            if axis is None and unused:
                axes[position] = unused.pop(0)
    if unused:
        name = build.op("Squeeze", name, build.ints(*unused))
    kept = [axis for axis in range(rank) if axis not in unused]
    order = [kept.index(axis) for axis in axes if axis is not None]
    if order != sorted(order):
        name = build.op("Transpose", name, perm=order)
    added = [position for position, axis in enumerate(axes) if axis is None]
    return build.op("Unsqueeze", name, build.ints(*added)) if added else name


def _reshaped_twice(index: Index, node: NodeProto) -> str | None:
    """The value x, if the node reshapes a Reshape of x back to the shape of x; else None."""
    first = index.producer(node.input[0], "Reshape")
    if first is None or not same_sizes(index.dims(first.input[0]), index.dims(node.output[0])):
        return None
    return first.input[0]
