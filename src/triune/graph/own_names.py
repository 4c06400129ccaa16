"""Names of free sizes that mean what they say while passes run: equal names are equal sizes.

ONNX gives free sizes of inputs names, such as "batch", and says that equal names mean equal sizes. No runtime holds
callers to it: ONNX Runtime computes a model with inputs whose sizes differ although they have one name, and fails only
where it wanted to put one value into the memory of another one. So a pass that concluded from a name that two inputs
have equal sizes would change answers without a word.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import zip_longest
from typing import Final

from onnx import GraphProto, ModelProto

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.declared import infer_anew
from triune.graph.passes.infer import Infer
from triune.graph.sizes import BROADCASTING
from triune.graph.values import Values, subgraphs_of

_MOST_ROUNDS: Final = 8
"""How often shapes are inferred to join sizes: a joined size may show that further ones are combined."""


def give_own_names(graph: GraphProto) -> Mapping[str, str]:
    """Give each free size of an input a name of its own, if several sizes have its name or it is a product ("2*n").

    Args:
        graph: changed in place: only its inputs. Shapes of other values must be inferred after this.

    Returns:
        the former name of each name that was given.
    """
    dims = [(value.name, dim) for value in graph.input for dim in value.type.tensor_type.shape.dim if dim.dim_param]
    counts = Counter(dim.dim_param for _, dim in dims)
    taken = set(counts)
    former: dict[str, str] = {}
    for name, dim in dims:
        before = dim.dim_param
        if counts[before] == 1 and "*" not in before:
            continue
        base = own = f"{before} of {name}".replace("*", " times ")
        count = 1
        while own in taken:
            count += 1
            own = f"{base} ({count})"
        taken.add(own)
        former[own] = before
        dim.dim_param = own
    return former


def with_own_names(model: ModelProto) -> tuple[ModelProto, Mapping[str, str]]:
    """A copy of a model in which each free size of an input has a name of its own, with shapes inferred from these
    names; the model itself if they have already. With it comes the former name of each name that was given.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    former = give_own_names(copy.graph)
    return (infer_anew(copy), former) if former else (model, former)


def join_combined(model: ModelProto, former: Mapping[str, str]) -> None:
    """Give one name to sizes of one former name that an elementwise operator combines, such as the tokens of a text and
    of its mask: the model itself holds them to be equal. If they differed, the operator would fail, unless one of them
    were 1.

    Args:
        model: changed in place: only the sizes of its inputs. Shapes of other values must be inferred after this.
        former: the result of `give_own_names`.
    """
    for _ in range(_MOST_ROUNDS if former else 0):
        copy = ModelProto()
        copy.CopyFrom(model)
        del copy.graph.value_info[:]
        try:
            values = Values(Infer()(copy).graph)
        except (InvalidArgumentError, UnsupportedError):
            # Conversions report what is wrong with the model, or mend it.
            return
        joined: dict[str, str] = {}
        for node in model.graph.node:
            if node.op_type not in BROADCASTING:
                continue
            kinds = [kind for name in node.input if name and (kind := values.type(name)) is not None]
            for dims in zip_longest(*([*kind.tensor_type.shape.dim][::-1] for kind in kinds)):
                found = sorted({dim.dim_param for dim in dims if dim is not None and dim.dim_param in former})
                if len(found) > 1 and len({former[name] for name in found}) == 1:
                    joined |= dict.fromkeys(found[1:], found[0])
        if not joined:
            return
        restore_names(model.graph, joined)


def restore_names(graph: GraphProto, former: Mapping[str, str]) -> None:
    """Give sizes the names that `former` has for theirs, in a graph and its subgraphs, which are changed in place. This
    undoes `give_own_names`.
    """
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in former:
                dim.dim_param = former[dim.dim_param]
    for node in graph.node:
        for inner in subgraphs_of(node):
            restore_names(inner, former)
