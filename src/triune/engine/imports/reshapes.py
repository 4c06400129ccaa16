"""Writes nodes that do not change the order of elements as Reshape with constant shapes, which takes runtimes no
time.
"""

from collections.abc import Mapping, Sequence

from onnx import ModelProto, NodeProto

from triune.graph.index import Index, perm_of
from triune.graph.passes.fold import PartlyKnown, partly_known
from triune.graph.passes.run import GraphPass
from triune.graph.values import attributes_of


class Reshapes(GraphPass):
    """Given Reshape with a computed shape whose sizes are known except one, Transpose that moves axes of size 1, and
    Cast to the same type. Result: Reshape by a constant, and no Cast.

    Exporters compute shapes from the batch size and the number of tokens, again in every layer. In the paged form each
    token is a row of the batch, so the number of tokens is 1: transposing heads and tokens moves an axis of size 1.
    """

    name = "reshapes"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Replace the nodes that `Reshapes` names in `model`, which is changed in place, and return it. Run `Tidy`
        afterwards, which removes values that no node reads any more.
        """
        index = Index(model.graph, "reshapes")
        nodes: list[NodeProto] = []
        parts: dict[str, PartlyKnown] = {}
        for node in model.graph.node:
            part = partly_known(node, index.values, index.constant, parts)
            if part is not None:
                parts[node.output[0]] = part
            _rewrite(index, node, parts)
            nodes += [*index.take(), node]
        index.replace(nodes)
        return model


def _rewrite(index: Index, node: NodeProto, parts: Mapping[str, PartlyKnown]) -> None:
    """Rewrite `node` in place if it is one of those that `Reshapes` names. `parts` has what is known of computed
    shapes, by name.
    """
    if node.domain not in ("", "ai.onnx"):
        return
    target: list[int] | None = None
    if node.op_type == "Reshape" and node.input[1] in parts and not attributes_of(node).get("allowzero"):
        target = _with_one_free(parts[node.input[1]].elements)
    elif node.op_type == "Transpose":
        dims = index.dims(node.input[0])
        if dims is not None:
            perm = perm_of(node, len(dims))
            moved = [axis for axis in perm if dims[axis] != 1]
            if moved == sorted(moved):
                target = _with_one_free([dims[axis] for axis in perm])
    elif node.op_type == "Cast":
        given = index.values.elem_type(node.input[0])
        if given and given == attributes_of(node)["to"]:
            node.op_type = "Identity"
            del node.attribute[:]
    if target is not None:
        node.op_type = "Reshape"
        del node.attribute[:], node.input[1:]
        node.input.append(index.build.ints(*target))


def _with_one_free(sizes: Sequence[int | str | None]) -> list[int] | None:
    """The sizes with -1 for the one that is not known; None if several are not known.

    If one size is -1 already and the first is unknown, the first becomes 0, which in a Reshape keeps the size of the
    input.
    """
    found = [each if isinstance(each, int) else -1 for each in sizes]
    if -1 in sizes and sizes[0] is None:
        found[0] = 0
    is_exact = all(each > 0 for each in found[1:] if each != -1)
    return found if is_exact and found.count(-1) <= 1 else None
