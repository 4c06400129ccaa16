"""Patterns of decoders' graphs that MLX computes with fewer operations than they have nodes.

- RotaryAttention: PagedAttention of queries and keys that RotaryEmbedding rotates. Inputs: queries, keys and values
  side by side; cosines, sines and positions as of RotaryEmbedding; both caches.
- SwiGlu: gate * sigmoid(gate) * x. Input: the gate and x side by side.
- AddNorm: a sum and its RMSNormalization. Inputs: both terms and the weight; outputs: the sum and the normalized sum.
"""

from collections.abc import Mapping

from onnx import GraphProto, NodeProto, helper

from triune.graph.paged_attention import BIAS_INPUT, DOMAIN, OP_TYPE
from triune.graph.values import attributes_of

ROTARY, SWIGLU, ADD_NORM = "RotaryAttention", "SwiGlu", "AddNorm"

_EITHER_WAY = ("interleaved", "rotary_embedding_dim")


def fuse(graph: GraphProto) -> GraphProto:
    """Copy a graph in the paged form, with each matched pattern replaced by one fused operator.

    Nodes whose results are no longer read stay in the graph: `Program` does not compute them.
    """
    found = GraphProto()
    found.CopyFrom(graph)
    makers = {name: node for node in graph.node for name in node.output}
    norms = _norms_of_sums(graph, makers)
    ends = {norm.output[0] for norm in norms.values()}
    del found.node[:]
    found.node.extend(
        _rotary_attention(node, makers) or _swiglu(node, makers) or _add_norm(node, norms) or node
        for node in graph.node
        if not ends.intersection(node.output)
    )
    return found


def _norms_of_sums(graph: GraphProto, makers: Mapping[str, NodeProto]) -> dict[str, NodeProto]:
    """Find each sum of two computed values that an RMSNormalization over the last axis reads. Returns the
    normalizations by the names of the sums.
    """
    constants = {tensor.name for tensor in graph.initializer}
    found: dict[str, NodeProto] = {}
    for node in graph.node:
        add = makers.get(node.input[0]) if node.op_type == "RMSNormalization" else None
        if add is None or add.op_type != "Add" or constants.intersection(add.input):
            continue
        if attributes_of(node).get("axis", -1) == -1 and node.input[1] in constants:
            found.setdefault(add.output[0], node)
    return found


def _add_norm(node: NodeProto, norms: Mapping[str, NodeProto]) -> NodeProto | None:
    norm = norms.get(node.output[0]) if node.op_type == "Add" else None
    if norm is None:
        return None
    epsilon = float(attributes_of(norm).get("epsilon", 1e-5))
    outputs = [node.output[0], norm.output[0]]
    return helper.make_node(ADD_NORM, [*node.input, norm.input[1]], outputs, domain=DOMAIN, epsilon=epsilon)


def _rotary_attention(node: NodeProto, makers: Mapping[str, NodeProto]) -> NodeProto | None:
    if node.op_type != OP_TYPE or node.domain != DOMAIN or len(node.input) > BIAS_INPUT:
        return None
    turns = [_turn(name, makers) for name in node.input[:2]]
    query, key = turns
    if query is None or key is None or list(query.input[1:]) != list(key.input[1:]) or len(query.input) != 4:
        return None
    options, others = attributes_of(query), attributes_of(key)
    if any(options.get(name, 0) != others.get(name, 0) for name in _EITHER_WAY):
        return None
    sources = [makers[each.input[0]].input[0] for each in (query, key)]
    split = makers.get(node.input[2])
    if split is None or split.op_type != "Split" or list(split.output) != [*sources, node.input[2]]:
        return None
    return helper.make_node(
        ROTARY,
        [split.input[0], *query.input[1:], *node.input[3:5]],
        node.output,
        domain=DOMAIN,
        **{name: options[name] for name in _EITHER_WAY if name in options},
        **attributes_of(node),
    )


def _turn(name: str, makers: Mapping[str, NodeProto]) -> NodeProto | None:
    """The RotaryEmbedding that computes the value `name`, between an Unsqueeze and a Squeeze; each row that it rotates
    is one token. None if other nodes compute the value.
    """
    squeeze = makers.get(name)
    turn = makers.get(squeeze.input[0]) if squeeze is not None and squeeze.op_type == "Squeeze" else None
    if turn is None or turn.op_type != "RotaryEmbedding":
        return None
    unsqueeze = makers.get(turn.input[0])
    return turn if unsqueeze is not None and unsqueeze.op_type == "Unsqueeze" else None


def _swiglu(node: NodeProto, makers: Mapping[str, NodeProto]) -> NodeProto | None:
    if node.op_type != "Mul":
        return None
    silu = makers.get(node.input[0])
    if silu is None or silu.op_type != "Mul":
        return None
    gate, sigmoid = silu.input[0], makers.get(silu.input[1])
    if sigmoid is None or sigmoid.op_type != "Sigmoid" or sigmoid.input[0] != gate:
        return None
    split = makers.get(gate)
    if split is None or split.op_type != "Split" or list(split.output) != [gate, node.input[1]]:
        return None
    # The two parts are multiplied with each other, so they must be halves of the same size. Split's default axis is 0,
    # which is not the last axis here.
    is_last = attributes_of(split).get("axis", 0) == -1
    return helper.make_node(SWIGLU, split.input[:1], node.output, domain=DOMAIN) if is_last else None
