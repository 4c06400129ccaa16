"""Convert a graph from fp32 to fp16."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from triune.core.errors import InvalidArgumentError
from triune.graph.names import Names, rename_values
from triune.graph.passes.infer import Infer
from triune.graph.passes.run import GraphPass
from triune.graph.passes.tidy import Tidy
from triune.graph.values import Values, subgraphs_of
from triune.graph.weight_files import WeightFile, array_of
from triune.graph.weights import Large

_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype"})
"""The names of attributes of ONNX operators that are element types."""

ALWAYS_FP32 = frozenset({"NonMaxSuppression"})
"""Operators that ONNX defines only for fp32."""

_FP32_OPERANDS: Mapping[str, tuple[int, ...]] = {"Resize": (1, 2)}
_FP32_RESULTS: Mapping[str, tuple[int, ...]] = {"LayerNormalization": (1, 2)}
"""For each operator, the positions of operands or results that stay fp32 although the node computes in fp16. ONNX
allows only fp32 for most of them. The regions of a Resize are image coordinates, for which fp16 is too coarse.
"""

_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)


class Halve(GraphPass):
    """Given tensors of fp32. Result: tensors of fp16, except for the model's inputs and outputs and for the nodes that
    are to stay in fp32.

    Finite constants beyond fp16 become its largest or lowest number: a mask of -3.4e38 becomes -65504. Values beyond
    fp16 that the model computes become infinite, as always in fp16. Between two nodes in fp32, values and constants
    stay fp32.
    """

    name = "halve"

    def __init__(self, keep: Collection[str] = (), wide: Collection[str] = (), file: WeightFile | None = None) -> None:
        """Args:
        keep: names of nodes or operators ("Softmax") that stay in fp32, between casts; their subgraphs do, too.
        wide: the names of the first results of further nodes that stay in fp32.
        file: the scratch file for new large weights; without it they are stored in the model.
        """
        self._keep = frozenset(keep)
        self._wide = frozenset(wide)
        self._file = file

    def __call__(self, model: ModelProto) -> ModelProto:
        """Convert the tensors of `model`, in place, from fp32 to fp16.

        Its constants must be initializers, and its types known.

        Raises:
            InvalidArgumentError: a name in `keep` is neither a node nor an operator of the model.
        """
        graph = model.graph
        require_known(self._keep, graph)
        leaving = [value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.FLOAT]
        # Inputs and outputs keep their types, and so does a constant that is itself an output.
        interface = [value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT]
        interface += [
            tensor.name for tensor in graph.initializer if tensor.name in leaving and tensor.name not in interface
        ]
        names = Names(graph)
        single = {name: names.value(f"{name}/interface") for name in interface}
        run = _Run(self._keep | ALWAYS_FP32, self._wide, single, names, self._file)
        wide = run.halve(graph, None, {}, is_kept=False)
        renamed = {name: names.value(f"{name}/fp16") for name in dict.fromkeys((*interface, *leaving))}
        rename_values(graph, renamed | {wide[name]: name for name in renamed if name in wide})
        for name in reversed(interface):
            graph.node.insert(0, _cast(name, renamed[name], TensorProto.FLOAT16))
        graph.node.extend(_cast(renamed[name], name, TensorProto.FLOAT) for name in leaving if name not in wide)
        model = Tidy()(model)
        large = Large(self._file)
        large.take(model)
        model = Infer()(model)
        large.give_back(model)
        return model


def require_known(keep: Collection[str], graph: GraphProto) -> None:
    """Raise InvalidArgumentError if a name in `keep` is neither a node nor an operator of the graph."""
    unknown = sorted(set(keep) - _names_of(graph))
    if unknown:
        raise InvalidArgumentError(
            f"'{unknown[0]}', which is to stay in fp32, is neither a node nor an operator of the model in core "
            "operators; give the name of a node or an operator"
        )


def _names_of(graph: GraphProto) -> set[str]:
    """The names of all nodes and of their operators, in a graph and its subgraphs."""
    names: set[str] = set()
    for node in graph.node:
        names |= {node.name, node.op_type}
        for inner in subgraphs_of(node):
            names |= _names_of(inner)
    return names


class _Run:
    """Converts one model. A mapping called `wide` maps the name of a value in fp16 to the name of its copy in fp32."""

    def __init__(
        self,
        keep: frozenset[str],
        wide: frozenset[str],
        interface: Mapping[str, str],
        names: Names,
        file: WeightFile | None,
    ) -> None:
        self._keep = keep
        self._wide = wide
        self._file = file
        self._interface = interface
        self._names = names

    def halve(
        self,
        graph: GraphProto,
        outer: Values | None,
        wide: Mapping[str, str],
        *,
        is_kept: bool,
        is_branch: bool = False,
    ) -> dict[str, str]:
        """Convert a graph to fp16, or leave it in fp32 if `is_kept`; returns the names of the values' copies in
        fp32.

        The results of an If stay fp32 (`is_branch`), since a node in fp32 may compute them in one of the branches.
        """
        values, known = Values(graph, outer), dict(wide)
        if outer is None:
            known.update(self._interface)
        elif is_kept:
            known.update({value.name: value.name for value in graph.input})
        work = _Nodes(self, values, known)
        for node in graph.node:
            is_wide = is_kept or bool(self._keep & {node.name, node.op_type}) or not self._wide.isdisjoint(node.output)
            for inner in subgraphs_of(node):
                self.halve(inner, values, known, is_kept=is_wide, is_branch=node.op_type == "If")
            work.keep(node) if is_wide else work.halve(node)
        if outer is not None and (is_kept or is_branch):
            for value in graph.output:
                if _is_float(value.type.tensor_type.elem_type):
                    value.name = work.widened(value.name)
        elif outer is not None:
            for value in (*graph.input, *graph.output):
                if _is_float(value.type.tensor_type.elem_type):
                    value.type.tensor_type.elem_type = TensorProto.FLOAT16
        inputs = {value.name for value in graph.input}
        del graph.value_info[:], graph.node[:]
        graph.node.extend(work.nodes)
        for tensor in graph.initializer:
            if _is_float(tensor.data_type) and tensor.name not in inputs and tensor.name not in self._interface:
                half = numpy_helper.from_array(halved(array_of(tensor)), tensor.name)
                tensor.CopyFrom(half if self._file is None else self._file.moved(half))
        graph.initializer.extend(work.constants)
        return known

    def wide_name(self, name: str) -> str:
        """A new name for the fp32 copy of a value."""
        return self._names.value(f"{name}/fp32")


class _Nodes:
    """Collects the converted nodes of a graph, and the fp32 copies of constants that they read."""

    def __init__(self, run: _Run, values: Values, wide: dict[str, str]) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._run = run
        self._values = values
        self._wide = wide

    def halve(self, node: NodeProto) -> None:
        """Convert a node to fp16, and add it to the new nodes."""
        for attribute in node.attribute:
            if attribute.type == AttributeProto.INT and attribute.name in _TYPE_ATTRIBUTES:
                attribute.i = TensorProto.FLOAT16 if _is_float(attribute.i) else attribute.i
            elif attribute.type == AttributeProto.TENSOR and _is_float(attribute.t.data_type):
                attribute.t.CopyFrom(numpy_helper.from_array(halved(array_of(attribute.t))))
        _set_default_type(node)
        results = range(len(node.output)) if node.op_type == "If" else _FP32_RESULTS.get(node.op_type, ())
        self._put(node, _FP32_OPERANDS.get(node.op_type, ()), results)

    def keep(self, node: NodeProto) -> None:
        """Add a node that stays in fp32, with the casts that it needs."""
        self._put(node, range(len(node.input)), range(len(node.output)))

    def _put(self, node: NodeProto, operands: Collection[int], results: Collection[int]) -> None:
        for position, name in enumerate(node.input):
            if position in operands and name and _is_float(self._values.elem_type(name)):
                node.input[position] = self.widened(name)
        self.nodes.append(node)
        for position, name in enumerate(node.output):
            if position in results and name and _is_float(self._values.elem_type(name)):
                node.output[position] = self._wide[name] = self._run.wide_name(name)
                self.nodes.append(_cast(node.output[position], name, TensorProto.FLOAT16))

    def widened(self, name: str) -> str:
        """The name of a value's copy in fp32. The first call creates the copy."""
        if name not in self._wide:
            tensor = self._values.tensor(name)
            self._wide[name] = self._run.wide_name(name)
            if tensor is None:
                self.nodes.append(_cast(name, self._wide[name], TensorProto.FLOAT))
            else:
                copy = TensorProto()
                copy.CopyFrom(tensor)
                copy.name = self._wide[name]
                self.constants.append(copy)
        return self._wide[name]


def _set_default_type(node: NodeProto) -> None:
    """Set the element type of a node's result to fp16 if its attribute is absent, which means fp32."""
    written = {attribute.name for attribute in node.attribute}
    if node.op_type in ("RandomUniform", "RandomNormal") and "dtype" not in written:
        node.attribute.append(helper.make_attribute("dtype", TensorProto.FLOAT16))
    elif node.op_type == "ConstantOfShape" and "value" not in written:
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, np.float16))))


def _is_float(elem_type: int) -> bool:
    return elem_type == TensorProto.FLOAT


def halved(array: NDArray[Any]) -> NDArray[np.float16]:
    """Round an array to fp16.

    Finite numbers stay finite, and numbers other than 0 do not become 0, since they may prevent a division by 0.
    """
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    overflown = np.isinf(half)
    overflown &= ~np.isinf(array)
    half[overflown] = np.copysign(_LARGEST, half[overflown])
    lost = half == 0
    lost &= array != 0
    half[lost] = np.copysign(_SMALLEST, half[lost])
    return half


def _cast(name: str, other: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [name], [other], name=f"{other}/cast", to=to)
