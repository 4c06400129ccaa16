"""Brings an exported decoder to standard operators of one version."""

import itertools
from typing import Final

from onnx import GraphProto, ModelProto, helper

from triune.core.errors import InvalidArgumentError
from triune.engine.imports.interface import Interface, fix_branch, read_interface
from triune.engine.imports.norms import Norms
from triune.engine.imports.products import Products
from triune.graph.contradictions import found_at
from triune.graph.declared import free_negative_sizes
from triune.graph.decompose import Decompose
from triune.graph.defaults import free_initializers
from triune.graph.load import require_valid
from triune.graph.passes.adopt import Adopt
from triune.graph.passes.branches import Branches
from triune.graph.passes.consistent import require_none
from triune.graph.passes.fold import Fold
from triune.graph.passes.infer import Infer
from triune.graph.passes.inline import Inline
from triune.graph.passes.n_bits import DOMAIN
from triune.graph.passes.run import run_passes
from triune.graph.passes.tidy import Tidy
from triune.graph.passes.upgrade import Upgrade
from triune.graph.values import Values, attributes_of
from triune.graph.weight_files import size_in_file
from triune.graph.weights import Large

GROUP_QUERY: Final = "GroupQueryAttention"
"""The operator of ONNX Runtime's own that `prepare` leaves in the graph: `group_query` reads it."""

_KEPT: Final = ("RMSNormalization", "RotaryEmbedding", "Gelu", "LayerNormalization")
"""Operators that are not decomposed, since all runtimes of decoders have them."""

_MAX_ROUNDS: Final = 8
_TYPES: Final = frozenset(helper.get_all_tensor_dtypes())


def prepare(model: ModelProto, large: Large, head_size: int = 0) -> tuple[ModelProto, Interface]:
    """Bring a decoder to standard operators, and GroupQueryAttention.

    Args:
        model: a result of `graph.load.load`; changed.
        large: where large weights are kept meanwhile, out of the model.
        head_size: see `read_interface`.

    Returns:
        the model without large weights, and its inputs and outputs.

    Raises:
        UnsupportedError: the model is not a decoder with caches, or an operator has an unknown form.
        InvalidArgumentError: the model is not valid ONNX.
    """
    free_initializers(model)
    fix_branch(model.graph)
    _require_consistent(model.graph)
    interface = read_interface(model.graph, head_size)
    model = Products()(model)
    large.take(model)
    free_negative_sizes(model.graph)
    del model.graph.value_info[:]
    model = Norms()(model)
    model = Adopt()(model)
    model = Upgrade()(model)
    require_valid(model)
    _declare_attention(model, interface)
    for _ in range(_MAX_ROUNDS):
        before = model.SerializeToString(deterministic=True)
        passes = [Infer(), Inline(_KEPT), Decompose(_KEPT), Infer(), Fold(), Branches(), Tidy()]
        model = run_passes(model, passes)
        large.take(model)
        if model.SerializeToString(deterministic=True) == before:
            break
    return model, interface


def _require_consistent(graph: GraphProto) -> None:
    """Raise InvalidArgumentError if constants, or nodes of ONNX Runtime's own operators, contradict themselves.
    Standard nodes are checked later, when all have the same operator set version.
    """
    for tensor in graph.initializer:
        if tensor.data_type not in _TYPES:
            raise InvalidArgumentError(
                f"the decoder's constant '{tensor.name}' is of the unknown type {tensor.data_type}"
            )
        num_bytes, needed = len(tensor.raw_data), size_in_file(tensor)
        if tensor.HasField("raw_data") and needed is not None and num_bytes != needed:
            raise InvalidArgumentError(
                f"the decoder's constant '{tensor.name}' has {num_bytes} bytes; its type and its shape "
                f"{list(tensor.dims)} take {needed}: export it again"
            )
    values = Values(graph)
    nodes = (node for node in graph.node if node.domain == DOMAIN)
    require_none((node, why) for node in nodes for why in itertools.islice(found_at(node, values), 1))


def _declare_attention(model: ModelProto, interface: Interface) -> None:
    """Declare the shapes of what GroupQueryAttention computes: ONNX's inference does not know it."""
    types = {each.name: each.type.tensor_type.elem_type for each in model.graph.input}
    for node in model.graph.node:
        if node.op_type == GROUP_QUERY and node.domain == DOMAIN:
            past = next((each for each in interface.pasts if each.key in node.input), None)
            if past is not None:
                width = int(attributes_of(node)["num_heads"]) * past.head_size
                model.graph.value_info.append(
                    helper.make_tensor_value_info(node.output[0], types[past.key], [None, None, width])
                )
