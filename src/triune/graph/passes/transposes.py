"""Join successive Transposes."""

from onnx import ModelProto, NodeProto

from triune.graph.editing import Edit, edit_graphs, node_of
from triune.graph.passes.run import GraphPass
from triune.graph.values import attributes_of


class Transposes(GraphPass):
    """Given a Transpose of a Transpose. Result: one Transpose of the first one's operand, or none if the two are
    inverse to each other.

    If the first Transpose has other consumers, the second is kept, unless the two are inverse to each other.
    """

    name = "transposes"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Join successive Transposes in `model`, in place."""
        edit_graphs(model, _join)
        return model


def _join(edit: Edit) -> None:
    for node in edit.each("Transpose"):
        first = edit.producer(node.input[0], "Transpose")
        perms = [None if each is None else permutation(edit, each) for each in (first, node)]
        if first is None or perms[0] is None or perms[1] is None:
            continue
        both = [perms[0][axis] for axis in perms[1]]
        if both == sorted(both):
            if edit.bypass(node, first.input[0]) and not _is_read(edit, first):
                edit.drop(first)
        elif edit.only_reader(first.output[0]) is node:
            edit.replace(node, [_named(node, first.input[0], both)])
            edit.drop(first)


def permutation(edit: Edit, node: NodeProto) -> list[int] | None:
    """The permutation of a Transpose; None if it lacks the attribute and its rank is not known."""
    found = attributes_of(node).get("perm")
    if found is not None:
        return [int(axis) for axis in found]
    rank = edit.values.rank(node.input[0])
    return None if rank is None else list(range(rank - 1, -1, -1))


def _named(node: NodeProto, name: str, perm: list[int]) -> NodeProto:
    joined = node_of("Transpose", [name], list(node.output), perm=perm)
    joined.name = node.name
    return joined


def _is_read(edit: Edit, node: NodeProto) -> bool:
    return bool(edit.readers(node.output[0])) or edit.is_kept(node.output[0])
