"""Convert a graph to the element types that Apple's runtimes compute in: fp16, fp32, int32 and bool."""

from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, helper

from triune.core.datatypes import Array
from triune.graph.builder import Builder
from triune.graph.names import Names
from triune.graph.passes.infer import Infer
from triune.graph.passes.narrow_compared import COMPARISONS, compare_within_int32
from triune.graph.passes.narrow_values import NARROWED, narrow_tensor
from triune.graph.passes.run import GraphPass
from triune.graph.values import attributes_of, names_read_by, subgraphs_of
from triune.graph.weight_files import WeightFile, array_of
from triune.graph.weights import Large

_WIDE_INPUTS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(["Reshape", "Expand", "Tile", "Squeeze", "Unsqueeze", "Split", "TopK", "Trilu"], (1,)),
    **dict.fromkeys(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"], (1,)),
    **dict.fromkeys(["ReverseSequence", "GatherND", "ScatterND"], (1,)),
    "Pad": (1, 3),
    "ConstantOfShape": (0,),
    "Loop": (0,),
    "NonMaxSuppression": (2,),
    "Resize": (3,),
}
"""The positions of the operands that stay INT64. For nearly all of them ONNX allows only INT64."""

_WIDE_OUTPUTS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(["Shape", "ArgMax", "ArgMin", "NonZero", "NonMaxSuppression"], (0,)),
    **dict.fromkeys(["TopK", "MaxPool"], (1,)),
}

_QUANTIZED: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "QuantizeLinear": ((2,), (0,)),
    "DequantizeLinear": ((0, 2), ()),
}
"""The positions of the operands and results that stay INT8, UINT8, INT16 and so on."""

_WRAPS = frozenset(
    ["Add", "Sub", "Mul", "Div", "Neg", "Abs", "Pow", "Cast", "ReduceSum", "ReduceProd", "CumSum", "MatMul"]
)
"""Operators whose results may exceed an integer type of 8 or 16 bits, for instance -128 / -1 = 128."""

_SCATTERS = frozenset(["ScatterND", "ScatterElements"])
"""Operators whose results may exceed an integer type of 8 or 16 bits if their attribute `reduction` is add or mul."""

_BEYOND_INT32 = (TensorProto.INT64, TensorProto.UINT64, TensorProto.UINT32)
"""Integer types with numbers that int32 cannot represent."""


class Narrow(GraphPass):
    """Given tensors of any number type. Result: tensors of fp16, fp32, int32 and bool. Integers of 8 and 16 bits still
    wrap around.

    Where ONNX allows only INT64 (the shape of a Reshape), a Cast to INT64 is inserted. Integers between QuantizeLinear
    and DequantizeLinear keep their type. A constant outside int32 is replaced by the nearest int32 if that has the same
    effect, else it is an error; `narrow_array` raises an error for an input. If the model computes an INT64 outside
    int32, it wraps without an error.
    """

    name = "narrow"

    def __init__(self, file: WeightFile | None = None) -> None:
        """`file` is the scratch file for new large weights; without it they are stored in the model."""
        self._file = file

    def __call__(self, model: ModelProto) -> ModelProto:
        """Convert the tensors of `model`, in place, to fp16, fp32, int32 and bool.

        `model` must be normalized (`normalize`): its constants are initializers, and its types are known.

        Raises:
            UnsupportedError: a constant does not fit into int32 or fp32, and no constant that fits has the same effect.
        """
        _Graph(model.graph, {}, Names(model.graph), self._file).narrow()
        large = Large(self._file)
        large.take(model)
        model = Infer()(model)
        large.give_back(model)
        return model


class _Graph:
    """Converts one graph. Each value keeps its name in the new type; copies in the old type are added where nodes need
    them.
    """

    def __init__(
        self,
        graph: GraphProto,
        outer: Mapping[str, tuple[int, TensorProto | None]],
        names: Names,
        file: WeightFile | None,
    ) -> None:
        self._graph = graph
        self._names = names
        self._file = file
        # For each name, the value's type before the conversion, and its tensor if it is constant.
        self._known = dict(outer)
        for value in (*graph.input, *graph.value_info, *graph.output):
            self._known[value.name] = (value.type.tensor_type.elem_type, None)
        inputs = {value.name for value in graph.input}
        for tensor in graph.initializer:
            self._known[tensor.name] = (tensor.data_type, None if tensor.name in inputs else tensor)
        self._nodes: list[NodeProto] = []
        self._added: list[TensorProto] = []
        # For each name and element type, the name of the value's copy in that type.
        self._other: dict[tuple[str, int], str] = {}

    def narrow(self, wide_inputs: tuple[int, ...] = ()) -> None:
        """Narrow the graph.

        `wide_inputs` are the positions of the inputs that ONNX requires to be INT64 (a Loop's iteration number).
        """
        graph = self._graph
        for index in wide_inputs:
            value = graph.input[index]
            name = value.name
            value.name = self._names.value(f"{name}/int64")
            self._cast(value.name, name, TensorProto.INT32)
            self._other[name, TensorProto.INT64] = value.name
        for index, value in enumerate(graph.input):
            if index not in wide_inputs:
                _retype(value.type)
        for node in graph.node:
            self._narrow(node)
        for value in (*graph.output, *graph.value_info):
            _retype(value.type)
        read = {name for node in self._nodes for name in names_read_by(node)} | {value.name for value in graph.output}
        kept = [self._narrow_tensor(tensor) for tensor in graph.initializer if tensor.name in read]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend([*kept, *self._added])

    def _narrow(self, node: NodeProto) -> None:
        types = [self._known.get(name, (0, None))[0] for name in node.output]
        if node.op_type in COMPARISONS:
            build = Builder(self._names.prefix(f"{node.output[0]}/compared"))
            if compare_within_int32(node, self._wide_constant, build):
                self._take(build)
                return
        wide_body = (0,) if node.op_type == "Loop" else ()
        for subgraph in subgraphs_of(node):
            _Graph(subgraph, self._known, self._names, self._file).narrow(wide_body)
        copy = NodeProto.FromString(node.SerializeToString())
        small_inputs, small_outputs = _QUANTIZED.get(node.op_type, ((), ()))
        for index in (*_WIDE_INPUTS.get(node.op_type, ()), *small_inputs):
            if index < len(copy.input) and copy.input[index]:
                elem_type, _ = self._known.get(node.input[index], (0, None))
                if elem_type in NARROWED:
                    copy.input[index] = self._as(node.input[index], elem_type)
        after: list[tuple[str, str]] = []
        for index in (*_WIDE_OUTPUTS.get(node.op_type, ()), *small_outputs):
            if index < len(copy.output) and copy.output[index] and types[index] in NARROWED:
                name = node.output[index]
                copy.output[index] = self._names.value(f"{name}/{helper.tensor_dtype_to_np_dtype(types[index])}")
                self._other[name, types[index]] = copy.output[index]
                after.append((copy.output[index], name))
        _retype_attributes(copy)
        is_pool = node.op_type == "MaxPool" and types[0] in (TensorProto.INT8, TensorProto.UINT8)
        limits = _limits(types[0]) if _may_wrap(node) and len(types) == 1 else None
        target = copy.output[0] if copy.output else ""
        build = Builder(self._names.prefix(f"{target}/narrow") if is_pool or limits is not None else "")
        if is_pool:
            copy.input[0] = build.cast(copy.input[0], TensorProto.FLOAT)
            self._take(build)
        if is_pool or limits is not None:
            copy.output[0] = build.name()
        self._nodes.append(copy)
        if is_pool:
            build.put("Cast", [copy.output[0]], [target], to=TensorProto.INT32)
        elif limits is not None:
            _wrap(build, copy.output[0], target, *limits)
        self._take(build)
        for wide, name in after:
            self._cast(wide, name, TensorProto.INT32)

    def _wide_constant(self, name: str) -> Array | None:
        """The array of a constant of `_BEYOND_INT32`; None for any other value."""
        elem_type, tensor = self._known.get(name, (0, None))
        return array_of(tensor) if tensor is not None and elem_type in _BEYOND_INT32 else None

    def _take(self, build: Builder) -> None:
        """Move nodes from `build` to the graph. Constant nodes become initializers, as in normalized models."""
        for node in build.nodes:
            if node.op_type == "Constant":
                tensor = TensorProto.FromString(node.attribute[0].t.SerializeToString())
                tensor.name = node.output[0]
                self._added.append(tensor)
            else:
                self._nodes.append(node)
        build.nodes.clear()

    def _as(self, name: str, elem_type: int) -> str:
        """The name of a copy of a value in `elem_type`, the type that it had before the conversion."""
        if (name, elem_type) in self._other:
            return self._other[name, elem_type]
        wide = self._names.value(f"{name}/as/{helper.tensor_dtype_to_np_dtype(elem_type)}")
        tensor = self._known[name][1]
        if tensor is None:
            self._cast(name, wide, elem_type)
        else:
            copy = TensorProto()
            copy.CopyFrom(tensor)
            copy.name = wide
            self._added.append(copy)
        self._other[name, elem_type] = wide
        return wide

    def _cast(self, source: str, target: str, elem_type: int) -> None:
        self._nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}/cast", to=elem_type))

    def _narrow_tensor(self, tensor: TensorProto) -> TensorProto:
        outputs = {value.name for value in self._graph.output}

        def readers_of(name: str) -> list[NodeProto] | None:
            return None if name in outputs else [node for node in self._nodes if name in names_read_by(node)]

        narrow = narrow_tensor(tensor, readers_of)
        return narrow if self._file is None else self._file.moved(narrow)


def _retype(kind: TypeProto) -> None:
    # Check the field first: reading `tensor_type` of a sequence's type would turn it into a tensor's type.
    if kind.HasField("tensor_type"):
        elem_type = kind.tensor_type.elem_type
        kind.tensor_type.elem_type = NARROWED.get(elem_type, elem_type)


def _retype_attributes(node: NodeProto) -> None:
    for attribute in node.attribute:
        if (attribute.name, node.op_type) in (
            ("to", "Cast"),
            ("dtype", "RandomUniform"),
            ("dtype", "RandomNormal"),
        ):
            attribute.i = NARROWED.get(attribute.i, attribute.i)
        elif attribute.name == "value" and node.op_type == "ConstantOfShape":
            attribute.t.CopyFrom(narrow_tensor(attribute.t, None))


def _may_wrap(node: NodeProto) -> bool:
    return node.op_type in _WRAPS or (
        node.op_type in _SCATTERS and attributes_of(node).get("reduction", "none") in ("add", "mul")
    )


def _limits(elem_type: int) -> tuple[int, int] | None:
    """The range of an integer type of fewer than 32 bits; None for any other type."""
    if NARROWED.get(elem_type) != TensorProto.INT32:
        return None
    info = np.iinfo(helper.tensor_dtype_to_np_dtype(elem_type).name)
    return (info.min, info.max) if info.bits < 32 else None


def _wrap(build: Builder, source: str, target: str, lowest: int, highest: int) -> None:
    """Build target = (source - lowest) mod size + lowest, with size = highest - lowest + 1: `source` wraps around, as
    an integer of the small type does.
    """
    size = build.constant(highest - lowest + 1, np.int32)
    if lowest == 0:
        build.put("Mod", [source, size], [target])
        return
    offset = build.constant(lowest, np.int32)
    build.put("Add", [build.op("Mod", build.op("Sub", source, offset), size), offset], [target])
