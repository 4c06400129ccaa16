"""Rewrite a graph of fp32 to compute in fp16."""

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
"""Attributes of ONNX's operators whose integer is an element type."""

_ALWAYS_FP32 = frozenset({"NonMaxSuppression"})
"""Operators that ONNX defines only for fp32."""

_FP32_OPERANDS: Mapping[str, tuple[int, ...]] = {"Resize": (1, 2)}
_FP32_RESULTS: Mapping[str, tuple[int, ...]] = {"LayerNormalization": (1, 2)}
"""Operands and results that ONNX has in fp32 alone, of operators that are halved; and regions of images, the
coordinates of which fp16 does not hold."""

_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)


class Halve(GraphPass):
    """Given tensors of fp32. Result: tensors of fp16, except for the model's inputs and outputs and for nodes to keep.

    Finite constants beyond fp16 become its largest numbers: masks of -3.4e38 stay masks. Computed values beyond fp16
    become infinite, as always in fp16. Between two kept nodes values and constants stay fp32.
    """

    name = "halve"

    def __init__(self, keep: Collection[str] = (), wide: Collection[str] = (), file: WeightFile | None = None) -> None:
        """Args:
        keep: names of nodes or operators ("Softmax") that still compute in fp32, between casts, as do their subgraphs.
        wide: the first results of further nodes that still compute in fp32.
        file: the scratch file for new large weights; without it they are stored in the model.
        """
        self._keep = frozenset(keep)
        self._wide = frozenset(wide)
        self._file = file

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`, whose constants are initializers and whose types are known.

        Raises:
            InvalidArgumentError: a name in `keep` is neither that of a node nor that of an operator in the model.
        """
        graph = model.graph
        require_known(self._keep, graph)
        leaving = [value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.FLOAT]
        # Inputs and outputs keep their types, and so does a constant that is itself an output.
        given = [value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT]
        given += [tensor.name for tensor in graph.initializer if tensor.name in leaving and tensor.name not in given]
        names = Names(graph)
        single = {name: names.value(f"{name}/given") for name in given}
        run = _Run(self._keep | _ALWAYS_FP32, self._wide, single, names, self._file)
        wide = run.halve(graph, None, {}, is_kept=False)
        renamed = {name: names.value(f"{name}/fp16") for name in dict.fromkeys((*given, *leaving))}
        rename_values(graph, renamed | {wide[name]: name for name in renamed if name in wide})
        for name in reversed(given):
            graph.node.insert(0, _cast(name, renamed[name], TensorProto.FLOAT16))
        graph.node.extend(_cast(renamed[name], name, TensorProto.FLOAT) for name in leaving if name not in wide)
        model = Tidy()(model)
        large = Large(self._file)
        large.take(model)
        model = Infer()(model)
        large.give_back(model)
        return model


def require_known(keep: Collection[str], graph: GraphProto) -> None:
    """Raises InvalidArgumentError if a name in `keep` is neither a node's nor an operator's in the graph."""
    unknown = sorted(set(keep) - _names_of(graph))
    if unknown:
        raise InvalidArgumentError(
            f"no node or operator of the model in core operators is '{unknown[0]}', which is to be kept in fp32; "
            "give the name of a node or an operator"
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
    """The rewriting of one model. The maps called `wide` hold, by a value's name, the name of its copy in fp32."""

    def __init__(
        self,
        keep: frozenset[str],
        wide: frozenset[str],
        given: Mapping[str, str],
        names: Names,
        file: WeightFile | None,
    ) -> None:
        self._keep = keep
        self._wide = wide
        self._file = file
        self._given = given
        self._names = names

    def halve(
        self, graph: GraphProto, outer: Values | None, wide: Mapping[str, str], *, is_kept: bool
    ) -> dict[str, str]:
        """Rewrite a graph in fp16, or if `is_kept` let it stay in fp32; returns the names of its values' copies in
        fp32.
        """
        values, known = Values(graph, outer), dict(wide)
        if outer is None:
            known.update(self._given)
        elif is_kept:
            known.update({value.name: value.name for value in graph.input})
        work = _Nodes(self, values, known)
        for node in graph.node:
            is_wide = is_kept or bool(self._keep & {node.name, node.op_type}) or not self._wide.isdisjoint(node.output)
            for inner in subgraphs_of(node):
                self.halve(inner, values, known, is_kept=is_wide)
            work.keep(node) if is_wide else work.halve(node)
        if outer is not None and is_kept:
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
            if _is_float(tensor.data_type) and tensor.name not in inputs and tensor.name not in self._given:
                half = numpy_helper.from_array(halved(array_of(tensor)), tensor.name)
                tensor.CopyFrom(half if self._file is None else self._file.moved(half))
        graph.initializer.extend(work.constants)
        return known

    def wide_name(self, name: str) -> str:
        """A new name for the copy of a value in fp32."""
        return self._names.value(f"{name}/fp32")


class _Nodes:
    """Collects the rewritten nodes of a graph, and the fp32 copies of constants that they read."""

    def __init__(self, run: _Run, values: Values, wide: dict[str, str]) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._run = run
        self._values = values
        self._wide = wide

    def halve(self, node: NodeProto) -> None:
        """Make a node compute in fp16, and add it."""
        for attribute in node.attribute:
            if attribute.type == AttributeProto.INT and attribute.name in _TYPE_ATTRIBUTES:
                attribute.i = TensorProto.FLOAT16 if _is_float(attribute.i) else attribute.i
            elif attribute.type == AttributeProto.TENSOR and _is_float(attribute.t.data_type):
                attribute.t.CopyFrom(numpy_helper.from_array(halved(array_of(attribute.t))))
        _say_type(node)
        self._put(node, _FP32_OPERANDS.get(node.op_type, ()), _FP32_RESULTS.get(node.op_type, ()))

    def keep(self, node: NodeProto) -> None:
        """Make a node compute in fp32, and add it with the casts that it needs."""
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
        """The name of a value's copy in fp32, which is created at the first call."""
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


def _say_type(node: NodeProto) -> None:
    """Set the element type attribute of a node to fp16 where it is absent, which means fp32."""
    written = {attribute.name for attribute in node.attribute}
    if node.op_type in ("RandomUniform", "RandomNormal") and "dtype" not in written:
        node.attribute.append(helper.make_attribute("dtype", TensorProto.FLOAT16))
    elif node.op_type == "ConstantOfShape" and "value" not in written:
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, np.float16))))


def _is_float(elem_type: int) -> bool:
    return elem_type == TensorProto.FLOAT


def halved(array: NDArray[Any]) -> NDArray[np.float16]:
    """An array rounded to fp16.

    Finite numbers stay finite and nonzero ones nonzero, since they may guard a quotient.
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
