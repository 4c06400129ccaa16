"""Insert casts so that ONNX Runtime rounds the result of each fp16 operation to fp16, as Apple's runtimes do.

On most CPUs ONNX Runtime has no fp16 arithmetic. It inserts casts to fp32 before operations and casts to fp16 after
them, and then removes the casts between two operations. So a chain of fp16 operations is rounded only once, at its end.
It does not remove casts that the model itself has, so this module writes them into the model.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

from triune.graph.names import Names

_HALF, _SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
# Operators that only copy elements, for which ONNX Runtime has kernels of all types.
_MOVES = {
    "Cast",
    "Concat",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "Reshape",
    "ScatterElements",
    "ScatterND",
    "Shape",
    "Size",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
_TYPE_ATTRIBUTES = {
    "Bernoulli": "dtype",
    "Cast": "to",
    "EyeLike": "dtype",
    "Multinomial": "dtype",
    "RandomNormal": "dtype",
    "RandomNormalLike": "dtype",
    "RandomUniform": "dtype",
    "RandomUniformLike": "dtype",
}


def with_half_rounding(model: ModelProto) -> ModelProto:
    """Make a copy of a model in which each fp16 operation rounds its result, by `keep_half_rounding`."""
    copy = ModelProto()
    copy.CopyFrom(model)
    keep_half_rounding(copy)
    return copy


def keep_half_rounding(model: ModelProto) -> None:
    """Change a model in place, so that each fp16 operation computes in fp32 and rounds its result to fp16.

    Given z = Add(x, y) in fp16, the result is z = Cast(Add(Cast(x), Cast(y))). Operators that only copy elements, and
    the model's inputs and outputs, keep their types. Constants are converted to fp32 for operations that read them.

    Nodes named OPERATION/OP_TYPE/NUMBER, as `raise_function` names them, are one operation of the program together, so
    values between them are not rounded. Every other node is an operation of its own.
    """
    version = next(each.version for each in model.opset_import if each.domain == "")
    types = {each.name: each.type.tensor_type.elem_type for each in model.graph.input}
    rounding = _Rounding(model.graph, version)
    rounding.graph(model.graph, types)
    rounding.drop_unread()


class _Rounding:
    """Inserts the casts into the main graph of a model and its subgraphs.

    All constants are initializers of the main graph, which subgraphs can read.
    """

    def __init__(self, root: GraphProto, version: int) -> None:
        self._root = root
        self._version = version
        self._halves = {
            each.name: each
            for each in root.initializer
            if each.data_type == _HALF and each.data_location != TensorProto.EXTERNAL
        }
        self._constants: dict[str, str] = {}
        self._casts: set[str] = set()
        self._names = Names(root)

    def graph(self, graph: GraphProto, outer: Mapping[str, int]) -> list[int]:
        """Insert casts into a graph, so that its operations compute in fp32 and round their results to fp16. Returns
        the element types of its outputs. `outer` has those of the values of outer graphs.
        """
        types = dict(outer)
        types.update({each.name: each.type.tensor_type.elem_type for each in graph.input})
        types.update({each.name: each.data_type for each in graph.initializer})
        raised: dict[str, str] = {}
        # For each operation and each result that it rounds to fp16, the name of the result before rounding.
        unrounded: dict[tuple[str, str], str] = {}
        nodes: list[NodeProto] = []
        for index, node in enumerate(list(graph.node)):
            self._infer(node, types)
            operation = _operation(node, index)
            is_plain = not any(each.HasField("g") for each in node.attribute)
            is_inside = any((operation, name) in unrounded for name in node.input)
            if not is_plain or node.domain or (node.op_type in _MOVES and not is_inside):
                nodes.append(node)
                continue
            for position, name in enumerate(node.input):
                if name and types.get(name) == _HALF:
                    node.input[position] = unrounded.get((operation, name)) or self._in_fp32(name, raised, nodes)
            nodes.append(node)
            for position, name in enumerate(node.output):
                if name and types.get(name) == _HALF and node.op_type != "Cast":
                    node.output[position] = unrounded[operation, name] = self._fresh(name)
                    nodes.append(_cast(node.output[position], name, _HALF))
                    self._casts.add(name)
        del graph.node[:]
        graph.node.extend(nodes)
        return [types.get(each.name, each.type.tensor_type.elem_type) for each in graph.output]

    def drop_unread(self) -> None:
        """Remove casts and constants in fp16 that no node reads any more."""
        read = set(_read(self._root))
        self._drop_casts(self._root, read)
        read = set(_read(self._root))
        kept = [each for each in self._root.initializer if each.name not in self._constants or each.name in read]
        if len(kept) < len(self._root.initializer):
            del self._root.initializer[:]
            self._root.initializer.extend(kept)

    def _drop_casts(self, graph: GraphProto, read: Set[str]) -> None:
        kept = [node for node in graph.node if node.output[0] not in self._casts or node.output[0] in read]
        del graph.node[:]
        graph.node.extend(kept)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    self._drop_casts(attribute.g, read)

    def _in_fp32(self, name: str, raised: dict[str, str], nodes: list[NodeProto]) -> str:
        """The name of the fp32 copy of an fp16 value; if a Cast must make the copy, it is added to `nodes`."""
        if name in self._halves:
            if name not in self._constants:
                half = self._halves[name]
                single = self._fresh(name)
                # Convert the constant here: a Cast node would convert it again in each run.
                self._root.initializer.append(numpy_helper.from_array(_array(half), single))
                self._constants[name] = single
            return self._constants[name]
        if name not in raised:
            raised[name] = self._fresh(name)
            nodes.append(_cast(name, raised[name], _SINGLE))
        return raised[name]

    def _fresh(self, name: str) -> str:
        return self._names.value(f"{name}/fp32")

    def _infer(self, node: NodeProto, types: dict[str, int]) -> None:
        """Infer the types of a node's outputs from its attributes, schema and inputs, and add them to `types`. Also
        insert casts into the node's subgraphs.
        """
        attributes = {each.name: each for each in node.attribute}
        inner = [self.graph(each.g, types) for each in node.attribute if each.HasField("g")]
        if inner:
            # Match outputs from the last one: the body of a Loop has one more output than the node, the condition,
            # which comes first.
            types.update(zip(node.output, inner[0][-len(node.output) :], strict=True))
            return
        stated = attributes.get(_TYPE_ATTRIBUTES.get(node.op_type, ""))
        if stated is not None:
            types.update(dict.fromkeys(node.output, stated.i))
            return
        if node.op_type in ("Constant", "ConstantOfShape") and "value" in attributes:
            types.update(dict.fromkeys(node.output, attributes["value"].t.data_type))
            return
        schema: Any = defs.get_schema(node.op_type, self._version, node.domain)
        bound: dict[str, int] = {}
        for formal, name in _paired(schema.inputs, node.input):
            if name in types:
                bound.setdefault(formal.type_str, types[name])
        for formal, name in _paired(schema.outputs, node.output):
            if formal.type_str in bound:
                types[name] = bound[formal.type_str]


def _cast(name: str, result: str, elem_type: int) -> NodeProto:
    return helper.make_node("Cast", [name], [result], name=f"{result}/Cast", to=elem_type)


def _operation(node: NodeProto, index: int) -> str:
    """The operation to which a node belongs: `name` if the node is called `name/op_type/...`, else the node's index."""
    parts = node.name.rsplit("/", 2)
    return parts[0] if len(parts) == 3 and parts[1] == node.op_type else f"{index}"


def _read(graph: GraphProto) -> Iterator[str]:
    """Yield the names of the values that a graph and its subgraphs read or return."""
    yield from (each.name for each in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _read(attribute.g)


def _array(half: TensorProto) -> Any:
    return numpy_helper.to_array(half).astype(np.float32)


def _paired(formals: Iterable[Any], names: Iterable[str]) -> Iterable[tuple[Any, str]]:
    """Pair the values with the parameters of a schema. The last parameter may be variadic, with several values."""
    listed = list(formals)
    for index, name in enumerate(names):
        if name and listed:
            yield listed[min(index, len(listed) - 1)], name
