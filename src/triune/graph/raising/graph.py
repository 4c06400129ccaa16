"""Builds ONNX graphs while a program is raised (converted to ONNX): nodes, tensors and constants."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from triune.core.errors import UnsupportedError
from triune.graph.raising.stored import Stored
from triune.graph.raising.types import Array, DType, TensorType

Shape = tuple[int | None, ...]

_ELEM_TYPES = MappingProxyType(
    {
        DType.BOOL: TensorProto.BOOL,
        DType.STRING: TensorProto.STRING,
        DType.FP16: TensorProto.FLOAT16,
        DType.FP32: TensorProto.FLOAT,
        DType.FP64: TensorProto.DOUBLE,
        DType.BF16: TensorProto.BFLOAT16,
        DType.INT8: TensorProto.INT8,
        DType.INT16: TensorProto.INT16,
        DType.INT32: TensorProto.INT32,
        DType.INT64: TensorProto.INT64,
        DType.UINT8: TensorProto.UINT8,
        DType.UINT16: TensorProto.UINT16,
        DType.UINT32: TensorProto.UINT32,
        DType.UINT64: TensorProto.UINT64,
        # Each element takes one byte, since the reader of programs unpacks them.
        DType.INT4: TensorProto.INT8,
        DType.UINT1: TensorProto.UINT8,
        DType.UINT2: TensorProto.UINT8,
        DType.UINT3: TensorProto.UINT8,
        DType.UINT4: TensorProto.UINT8,
        DType.UINT6: TensorProto.UINT8,
    }
)

_SIZE_TYPES = (DType.INT32, DType.UINT32, DType.UINT64)
"""Integer types in which every size of a dimension can be represented."""


def elem_type(dtype: DType) -> int:
    """ONNX's TensorProto.DataType of an element type."""
    return int(_ELEM_TYPES[dtype])


def value_info(name: str, kind: TensorType) -> ValueInfoProto:
    """Describe an input or output of a graph. Each unknown dimension gets a name of its own, made from the value's
    name.
    """
    shape: list[int | str] | None = None
    if kind.shape is not None:
        shape = [f"{name}_{axis}" if size is None else size for axis, size in enumerate(kind.shape)]
    return helper.make_tensor_value_info(name, elem_type(kind.dtype), shape)


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A value of the graph. A constant is written into the graph when it is first used.

    Attributes:
        name: the name in the graph.
        dtype: the element type.
        shape: the known sizes, None for an unknown one; None if the rank is unknown.
        constant: the elements, if they are known before the graph runs.
    """

    name: str
    dtype: DType
    shape: Shape | None = None
    constant: Array | None = None

    @property
    def rank(self) -> int:
        """The number of dimensions.

        Raises:
            UnsupportedError: the rank is unknown.
        """
        if self.shape is None:
            raise UnsupportedError(f"'{self.name}' has an unknown number of dimensions")
        return len(self.shape)

    def size(self, axis: int) -> int | None:
        """The size of one dimension; None if unknown."""
        return None if self.shape is None else self.shape[axis]


class KeptWeights(Protocol):
    """Weights in a compressed form, quantized or palettized, that ONNX nodes decompress."""

    def protos(self, name: str, fresh: Callable[[str], str]) -> tuple[list[NodeProto], list[TensorProto]]:
        """The nodes that compute the value `name` from constants, and these constants. `fresh` makes unused names."""
        ...


class Root:
    """The names and constants that a graph shares with its subgraphs.

    Attributes:
        initializers: the constants that have been used so far.
        nodes: the nodes that decompress constants; they come before all other nodes.
        keep_quantized: whether weights stay compressed if ONNX can express their form.
        quantized: the compressed form of constants, by name.
        sizes: for values that are sizes of dimensions, by name, the same value in INT64.
        stored: counts the bytes of the program's constants and of the arrays computed from them, and limits the latter.
    """

    def __init__(self, reserved: Sequence[str], *, keep_quantized: bool = False) -> None:
        """`reserved` are the names of the function's inputs and outputs, which no other value may get."""
        self.initializers: list[TensorProto] = []
        self.nodes: list[NodeProto] = []
        self.keep_quantized = keep_quantized
        self.quantized: dict[str, KeptWeights] = {}
        self.sizes: dict[str, Tensor] = {}
        self.stored = Stored()
        self._reserved = set(reserved)
        self._taken = set(reserved)
        self._counts: dict[str, int] = {}
        self._written: set[str] = set()
        self._cache: dict[tuple[str, tuple[int, ...], bytes], Tensor] = {}

    def claim(self, name: str) -> bool:
        """Take a reserved name for a value; returns whether it was still free."""
        if name not in self._reserved:
            return False
        self._reserved.discard(name)
        return True

    def fresh(self, base: str) -> str:
        """A new name: `base`, or `base` with a number if it is taken."""
        name = base
        while name in self._taken:
            self._counts[base] = self._counts.get(base, 0) + 1
            name = f"{base}/{self._counts[base]}"
        self._taken.add(name)
        return name

    def constant(self, value: Array, dtype: DType) -> Tensor:
        """Create a constant that is not in the program. Equal small constants are written once."""
        array = np.asarray(value, dtype.numpy)
        if array.nbytes > 256 or dtype is DType.STRING:
            return Tensor(self.fresh("constant"), dtype, array.shape, array)
        key = (dtype.value, array.shape, array.tobytes())
        if key not in self._cache:
            self._cache[key] = Tensor(self.fresh("constant"), dtype, array.shape, array)
        return self._cache[key]

    def write(self, tensor: Tensor) -> None:
        """Write a constant into the graph, once.

        Raises:
            UnsupportedError: the constants of the program become too large.
        """
        if tensor.constant is None or tensor.name in self._written:
            return
        self._written.add(tensor.name)
        quantized = self.quantized.get(tensor.name)
        if quantized is None:
            self.stored.make(tensor.constant.nbytes)
            self.initializers.append(_tensor_proto(tensor))
        else:
            nodes, parts = quantized.protos(tensor.name, self.fresh)
            self.nodes.extend(nodes)
            self.initializers.extend(parts)


class Graph:
    """A graph to which nodes are added in order of execution.

    Attributes:
        root: the names and constants that the graph shares with its subgraphs.
        nodes: the nodes added so far.
        prefix: the prefix for the names of new nodes: the name of the operation that is raised.
    """

    def __init__(self, root: Root) -> None:
        self.root = root
        self.nodes: list[NodeProto] = []
        self.prefix = ""

    def op(
        self,
        op_type: str,
        /,
        *inputs: Tensor | None,
        dtype: DType | None = None,
        shape: Shape | None = None,
        **attributes: Any,
    ) -> Tensor:
        """Add a node with one output, which has the first input's type unless `dtype` is given."""
        if dtype is None:
            first = next((each for each in inputs if each is not None), None)
            dtype = DType.FP32 if first is None else first.dtype
        result = self.ops(op_type, inputs, (dtype,), **attributes)[0]
        return Tensor(result.name, dtype, shape)

    def ops(
        self, op_type: str, inputs: Sequence[Tensor | None], dtypes: Sequence[DType | None], **attributes: Any
    ) -> list[Tensor]:
        """Add a node with several outputs; a dtype of None omits that output (its Tensor has an empty name)."""
        names = [self.use(each) for each in inputs]
        while names and not names[-1]:
            names.pop()
        outputs = [
            Tensor("" if dtype is None else self.root.fresh(f"{self.prefix}/{op_type}"), dtype or DType.FP32)
            for dtype in dtypes
        ]
        node = helper.make_node(op_type, names, [each.name for each in outputs], **attributes)
        node.name = f"{self.prefix}/{op_type}/{len(self.nodes)}"
        self.nodes.append(node)
        return outputs

    def put(self, op_type: str, inputs: Sequence[Tensor | None], output: str, **attributes: Any) -> None:
        """Add a node whose only output has a given name."""
        node = helper.make_node(op_type, [self.use(each) for each in inputs], [output], **attributes)
        node.name = f"{self.prefix}/{op_type}/{len(self.nodes)}"
        self.nodes.append(node)

    def use(self, tensor: Tensor | None) -> str:
        """The name of a value for a node that reads it; "" for None. A constant is written into the graph first."""
        if tensor is None:
            return ""
        self.root.write(tensor)
        return tensor.name

    def constant(self, value: Any, dtype: DType) -> Tensor:
        """Create a constant of type `dtype`."""
        return self.root.constant(np.asarray(value), dtype)

    def ints(self, *values: int) -> Tensor:
        """A constant INT64 vector: axes, sizes, shapes."""
        return self.root.constant(np.array(values, np.int64), DType.INT64)

    def like(self, value: Any, tensor: Tensor) -> Tensor:
        """Create a constant of the element type of `tensor`."""
        return self.root.constant(np.asarray(value), tensor.dtype)

    def cast(self, tensor: Tensor, dtype: DType) -> Tensor:
        """Cast `tensor` to `dtype`; return `tensor` itself if it has that type already."""
        if elem_type(tensor.dtype) == elem_type(dtype):
            return Tensor(tensor.name, dtype, tensor.shape, tensor.constant)
        if tensor.constant is not None and tensor.constant.size <= 64 and DType.STRING not in (tensor.dtype, dtype):
            return self.constant(tensor.constant.astype(dtype.numpy), dtype)
        sizes = self.root.sizes.get(tensor.name)
        if sizes is None:
            return self.op("Cast", tensor, dtype=dtype, shape=tensor.shape, to=elem_type(dtype))
        if dtype is DType.INT64:
            return Tensor(sizes.name, dtype, tensor.shape)
        result = self.op("Cast", sizes, dtype=dtype, shape=tensor.shape, to=elem_type(dtype))
        if dtype in _SIZE_TYPES:
            self.root.sizes[result.name] = sizes
        return result

    def as_sizes(self, tensor: Tensor) -> Tensor:
        """Mark the INT64 `tensor` as sizes of dimensions, for which `cast` omits casts to 32 bits and back."""
        self.root.sizes[tensor.name] = tensor
        return tensor

    def shape_of(self, tensor: Tensor) -> Tensor:
        """The shape as an INT64 vector; a constant if it is known."""
        if tensor.shape is not None and None not in tensor.shape:
            return self.ints(*(size for size in tensor.shape if size is not None))
        return self.as_sizes(self.op("Shape", tensor, dtype=DType.INT64))

    def dim(self, tensor: Tensor, axis: int) -> Tensor:
        """One dimension as an INT64 vector of one element; `axis` is not negative."""
        size = tensor.size(axis)
        if size is not None:
            return self.ints(size)
        return self.as_sizes(self.op("Shape", tensor, dtype=DType.INT64, start=axis, end=axis + 1))

    def concat(self, *vectors: Tensor, axis: int = 0) -> Tensor:
        """Concatenate vectors; the result is a constant if all of them are."""
        if axis == 0 and all(each.constant is not None for each in vectors):
            arrays = [each.constant for each in vectors if each.constant is not None]
            return self.constant(np.concatenate(arrays), vectors[0].dtype)
        return vectors[0] if len(vectors) == 1 else self.op("Concat", *vectors, axis=axis)

    def reshape(self, tensor: Tensor, *sizes: int) -> Tensor:
        """Reshape to known sizes, with ONNX's meaning of -1 (the rest) and 0 (the input's size)."""
        return self.op("Reshape", tensor, self.ints(*sizes))

    def scalar(self, tensor: Tensor) -> Tensor:
        """Reshape a tensor of one element to a scalar."""
        return tensor if tensor.shape == () else self.reshape(tensor)

    def squeeze(self, tensor: Tensor, *axes: int) -> Tensor:
        """Remove the dimensions `axes`, which have size 1."""
        return self.op("Squeeze", tensor, self.ints(*axes)) if axes else tensor

    def unsqueeze(self, tensor: Tensor, *axes: int) -> Tensor:
        """Add dimensions of size 1 at `axes` of the result."""
        return self.op("Unsqueeze", tensor, self.ints(*axes)) if axes else tensor

    def subgraph(self) -> "Graph":
        """Make a subgraph of this graph, which can read this graph's values."""
        inner = Graph(self.root)
        inner.prefix = self.prefix
        return inner

    def proto(self, name: str, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]) -> GraphProto:
        """The graph as ONNX's message, without constants, which are in `root`."""
        return helper.make_graph(self.nodes, name, list(inputs), list(outputs))


def _tensor_proto(tensor: Tensor) -> TensorProto:
    array: Array = np.ascontiguousarray(tensor.constant)
    sizes = [size for size in tensor.shape or () if size is not None]
    if tensor.dtype is DType.STRING:
        proto = numpy_helper.from_array(array.reshape(sizes))
    else:
        proto = TensorProto(data_type=elem_type(tensor.dtype), dims=sizes, raw_data=array.tobytes())
    proto.name = tensor.name
    return proto
