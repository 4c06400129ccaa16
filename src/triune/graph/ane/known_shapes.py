"""Replace sizes that are known by constants in the target shapes of Reshape and Expand."""

from collections.abc import Sequence

from onnx import ModelProto, NodeProto

from triune.graph.ane.layout_pass import LayoutPass
from triune.graph.index import Dim, Index, label


class KnownShapes(LayoutPass):
    """Given Reshape and Expand to a shape that nodes compute. Result: the same, with constants for the sizes that are
    known.

    In a model with a free batch size, exporters compute every size from a Shape node: [b, s, -1] after an attention, or
    [b, 1, 32] for a class token. Most of these sizes are known by symbolic shapes (`graph.sizes`), but compilers only
    use constants. Moreover, a Shape node would read (B, S, C), so that its operand could not stay (B, C, 1, S).
    """

    name = "known_shapes"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Write known sizes as constants into the target shapes of Reshape and Expand in `model`, in place."""
        index = self._index(model.graph)
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            shape = None
            if node.op_type in ("Reshape", "Expand") and not index.is_constant(node.input[1]):
                shape = _target(index, node) if node.op_type == "Reshape" else _with_constants(index, node.input[1])
            if shape is not None:
                before = index.dims(node.output[0]) or ()
                node.input[1] = shape
                # Remove `allowzero`: the shape may now contain 0, which without `allowzero` means the operand's size.
                kept = [each for each in node.attribute if each.name != "allowzero"]
                del node.attribute[:]
                node.attribute.extend(kept)
                nodes += index.take()
                self._report.change(self.name, label(node), f"to [{', '.join(map(_shown, before))}]")
            nodes.append(node)
        index.replace(nodes)
        return model


def _target(index: Index, node: NodeProto) -> str | None:
    """Build the target shape of a Reshape as a constant: 0 for a size that equals the operand's, -1 for one other size.
    None if more sizes are unknown.
    """
    given, dims = index.dims(node.input[0]), index.dims(node.output[0])
    if given is None or dims is None or 0 in dims:
        return None
    sizes: list[int] = []
    for axis, dim in enumerate(dims):
        if isinstance(dim, int):
            sizes.append(dim)
        elif dim is not None and axis < len(given) and given[axis] == dim:
            sizes.append(0)
        else:
            sizes.append(-1)
    return index.build.ints(*sizes) if sizes.count(-1) <= 1 else None


def _with_constants(index: Index, shape: str) -> str | None:
    """Build the 1-D tensor `shape` as a Concat in which known sizes are constants; None if they are already, or if none
    is known.
    """
    elements = index.elements(shape)
    if elements is None or any(isinstance(size, int) and size < 0 for size in elements):
        return None
    concat = index.producer(shape, "Concat")
    if not _is_any_known(elements) or (concat is not None and _has_constants(index, concat)):
        return None
    build = index.build
    parts = [
        build.ints(size)
        if isinstance(size, int)
        else build.op("Slice", shape, build.ints(position), build.ints(position + 1), build.ints(0))
        for position, size in enumerate(elements)
    ]
    return build.op("Concat", *parts, axis=0)


def _has_constants(index: Index, concat: NodeProto) -> bool:
    """Whether all known sizes that a Concat concatenates are constants."""
    return all(index.is_constant(name) or not _is_any_known(index.elements(name) or ()) for name in concat.input)


def _is_any_known(elements: Sequence[Dim]) -> bool:
    return any(isinstance(size, int) for size in elements)


def _shown(size: Dim) -> str:
    return "?" if size is None else str(size)
