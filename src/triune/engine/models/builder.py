"""A builder of transformers as ONNX graphs, from the tensors of a checkpoint."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from triune.core.datatypes import Array
from triune.engine.models.adapters import Adapters
from triune.engine.weights import DenseTensor, PackedTensor, Tensor
from triune.engine.weights.lora import Adapter
from triune.engine.weights.tensors import joined_rows
from triune.graph import paged_attention
from triune.graph.builder import Builder
from triune.graph.held import HeldModel, held_tensor
from triune.graph.weight_files import LARGE_BYTES

OPSET = 23
"""The version of the operator set of the graphs: the first that has RMSNormalization, RotaryEmbedding and Attention."""

_IR_VERSION = 11

_CODES = {
    (4, True): TensorProto.INT4,
    (4, False): TensorProto.UINT4,
    (8, True): TensorProto.INT8,
    (8, False): TensorProto.UINT8,
}


class Weights(Protocol):
    """The source of a model's tensors, such as a checkpoint."""

    def tensor(self, name: str) -> Tensor:
        """Read a tensor of the checkpoint. Matrices are [out, in]."""
        ...


class ModelBuilder(Builder):
    """Collects the nodes and weights of a graph. Activations are FP32; weights keep the checkpoint's types."""

    def __init__(self, name: str, weights: Weights, adapters: Sequence[Adapter] = ()) -> None:
        """Args:
        name: the graph's name.
        weights: the source of the tensors.
        adapters: LoRA adapters; each token may have one of them.
        """
        super().__init__(name)
        self._name = name
        self._weights = weights
        self._adapters = Adapters(self, adapters)
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._held: dict[str, NDArray[np.uint8]] = {}
        self._read: dict[str, Tensor] = {}

    def input(self, name: str, elem_type: int, *shape: int | str) -> str:
        """Declare an input of the graph. A string in `shape` names a free dimension."""
        self._inputs.append(helper.make_tensor_value_info(name, elem_type, shape))
        return name

    def output(self, name: str, elem_type: int, *shape: int | str) -> None:
        """Declare the value `name` as an output of the graph."""
        self._outputs.append(helper.make_tensor_value_info(name, elem_type, shape))

    def result(self, x: str, name: str, *shape: int | str) -> None:
        """Declare the FP32 value `x` as an output called `name`."""
        self.put("Identity", [x], [name])
        self.output(name, TensorProto.FLOAT, *shape)

    def scalar(self, value: float) -> str:
        """A constant FP32 scalar."""
        return self.table(f"scalar {value!r}", np.float32(value))

    def number(self, value: int) -> str:
        """A constant INT64 scalar."""
        return self.table(f"number {value}", np.int64(value))

    def ints(self, *values: int) -> str:
        """A constant INT64 vector, such as a shape. Equal vectors are written once."""
        return self.table(f"ints {' '.join(map(str, values))}", np.array(values, np.int64))

    def table(self, name: str, array: ArrayLike) -> str:
        """Add a constant of this name and of the array's type, unless there is one of this name already; returns the
        name.
        """
        values = np.asarray(array)
        return self._hold(name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape, values)

    def has_table(self, name: str) -> bool:
        """Whether there is a constant of this name."""
        return name in self._initializers

    def rows(self, name: str, indices: NDArray[np.int64]) -> str:
        """Add the rows `indices` of a small matrix of the checkpoint as an FP32 constant [indices, in]; returns its
        name.
        """
        return self.table(f"{name}.rows", self._tensor(name).dequantize()[indices])

    def vector(self, name: str, plus: float = 0.0) -> str:
        """Add a small tensor of the checkpoint as an FP32 constant, with `plus` added: a bias, or the weight of a norm
        or convolution.
        """
        return self.table(name, self._tensor(name).dequantize() + np.float32(plus))

    def choose_adapters(self, *shape: str) -> None:
        """Declare the inputs that say which adapter each token has (`Adapters`), for token ids of this shape. Does
        nothing if there are no adapters.
        """
        self._adapters.declare(*shape)

    def linear(self, x: str, name: str, *, has_bias: bool = False) -> str:
        """Build `x` times the transpose of the matrix `{name}.weight`, plus `{name}.bias` if `has_bias`, plus the
        products of adapters.
        """
        y = self._product(x, name, has_bias)
        return self._adapters.added(y, x, {name: self._tensor(f"{name}.weight").shape[0]})

    def product_with(self, x: str, name: str, matrix: NDArray[np.float32]) -> str:
        """Build `x` times the transpose of `matrix` [out, in], which is stored as a constant called `name`."""
        return self.op("MatMul", x, self.op("Transpose", self.table(name, matrix), perm=[1, 0]))

    def linears(self, x: str, names: Sequence[str], *, has_bias: bool = False) -> list[str]:
        """The products of `x` with several matrices, as `linear` computes each. Matrices of one form are computed as
        one product, whose columns are split: a runtime then starts one operation instead of several. `has_bias` says
        whether all matrices have a bias; otherwise none has.
        """
        joined = joined_rows([self._tensor(f"{name}.weight") for name in names])
        if joined is None:
            return [self.linear(x, name, has_bias=has_bias) for name in names]
        sizes = {name: self._read.pop(f"{name}.weight").shape[0] for name in names}
        whole = " + ".join(names)
        self._read[f"{whole}.weight"] = joined
        if has_bias:
            bias = np.concatenate([self._tensor(f"{name}.bias").dequantize() for name in names])
            self._read[f"{whole}.bias"] = DenseTensor(bias, joined.form)
        y = self._adapters.added(self._product(x, whole, has_bias), x, sizes)
        return self.ops("Split", len(names), y, self.ints(*sizes.values()), axis=-1)

    def embedding(self, ids: str, name: str) -> str:
        """Build the rows `ids` of the matrix `{name}.weight` as FP32. If the matrix is packed, only these rows are
        unpacked.
        """
        name = f"{name}.weight"
        tensor = self._tensor(name)
        if isinstance(tensor, DenseTensor):
            return self._as_float(self.op("Gather", self._dense(name, tensor.values), ids), tensor.values)
        codes = self._gathered_codes(ids, name, tensor)
        # Reshape to [*shape of the ids, blocks, block size], so that each block is multiplied by its scale.
        blocks = self.op(
            "Reshape", codes, self.op("Concat", self.op("Shape", ids), self.ints(-1, tensor.block_size), axis=0)
        )
        scales, zeros = _scales_and_zeros(tensor)
        if zeros is not None:
            zeros = self.op("Gather", self.table(f"{name}.zero points of rows", zeros), ids)
            blocks = self.op("Sub", blocks, self._unsqueezed(zeros))
        whole = self.op("Mul", blocks, self._unsqueezed(self.op("Gather", self.table(f"{name}.scales", scales), ids)))
        return self.op("Reshape", whole, self.op("Concat", self.op("Shape", ids), self.ints(-1), axis=0))

    def rms_norm(self, x: str, name: str, epsilon: float, plus: float = 0.0) -> str:
        """Build root mean square normalization over the last axis. Its weight is `{name}.weight` plus `plus`."""
        return self.op("RMSNormalization", x, self.vector(f"{name}.weight", plus), axis=-1, epsilon=epsilon)

    def layer_norm(self, x: str, name: str, epsilon: float) -> str:
        """Layer normalization over the last axis with `{name}.weight` and `{name}.bias`."""
        given = self.vector(f"{name}.weight"), self.vector(f"{name}.bias")
        return self.op("LayerNormalization", x, *given, axis=-1, epsilon=epsilon)

    def activation(self, x: str, kind: str) -> str:
        """Build an activation function. `kind` is its name in Hugging Face's configs."""
        match kind:
            case "silu":
                return self.op("Mul", x, self.op("Sigmoid", x))
            case "relu":
                return self.op("Relu", x)
            case "gelu":
                return self.op("Gelu", x)
            case "gelu_new" | "gelu_pytorch_tanh":
                return self.op("Gelu", x, approximate="tanh")
            case _:
                raise ValueError(f"unknown activation {kind!r}")

    def softcap(self, x: str, cap: float) -> str:
        """Limit `x`: cap * tanh(x / cap); `x` itself if the cap is 0."""
        if not cap:
            return x
        return self.op("Mul", self.op("Tanh", self.op("Div", x, self.scalar(cap))), self.scalar(cap))

    def build(self) -> HeldModel:
        """Returns the model, with its weights stored outside the graph's protobuf."""
        graph = helper.make_graph(
            self.nodes, self._name, self._inputs, self._outputs, initializer=list(self._initializers.values())
        )
        imports = [helper.make_opsetid("", OPSET)]
        if any(node.domain == paged_attention.DOMAIN for node in self.nodes):
            imports.append(helper.make_opsetid(paged_attention.DOMAIN, paged_attention.VERSION))
        model: ModelProto = helper.make_model(
            graph, opset_imports=imports, ir_version=_IR_VERSION, producer_name="triune"
        )
        return HeldModel(model, self._held)

    def _product(self, x: str, name: str, has_bias: bool) -> str:
        y = self.op("MatMul", x, self.op("Transpose", self._matrix(f"{name}.weight"), perm=[1, 0]))
        return self.op("Add", y, self.vector(f"{name}.bias")) if has_bias else y

    def _tensor(self, name: str) -> Tensor:
        """A tensor of the checkpoint. It is kept once read, since tied weights are used twice."""
        if name not in self._read:
            self._read[name] = self._weights.tensor(name)
        return self._read[name]

    def _dense(self, name: str, values: Array) -> str:
        return self._hold(name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape, values)

    def _matrix(self, name: str) -> str:
        """Build a matrix [out, in] as FP32. A packed matrix stays packed in the graph, and runtimes fuse the nodes that
        unpack it.
        """
        tensor = self._tensor(name)
        if isinstance(tensor, DenseTensor):
            return self._as_float(self._dense(name, tensor.values), tensor.values)
        codes, (scales, zeros) = self._codes(name, tensor), _scales_and_zeros(tensor)
        if tensor.offsets is None:
            given = [codes, self.table(f"{name}.scales", scales)]
            if tensor.packed_zero_points is not None:
                elem_type = _CODES[tensor.bits, False]
                given.append(self._hold(f"{name}.zero points", elem_type, scales.shape, tensor.packed_zero_points))
            return self.op("DequantizeLinear", *given, axis=1, block_size=tensor.block_size)
        # DequantizeLinear takes only integer zero points, so the weights are computed by other operators.
        assert zeros is not None
        numbers = self.cast(codes, TensorProto.FLOAT)
        numbers = self.op("Sub", numbers, self.table(f"{name}.zero points", zeros[..., np.newaxis]))
        numbers = self.op("Mul", numbers, self.table(f"{name}.scales of blocks", scales[..., np.newaxis]))
        return self.op("Reshape", numbers, self.ints(*tensor.shape))

    def _codes(self, name: str, tensor: PackedTensor) -> str:
        """Build a packed matrix's codes [out, in]; or [out, blocks, block size] if its zero points are not integers."""
        rows, columns = tensor.shape
        blocks = () if tensor.offsets is None else (columns // tensor.block_size,)
        shape = (rows, *blocks, tensor.block_size if blocks else columns)
        return self._hold(f"{name}.codes", _CODES[tensor.bits, tensor.is_signed], shape, tensor.codes)

    def _gathered_codes(self, ids: str, name: str, tensor: PackedTensor) -> str:
        """Build the codes of the rows `ids` as FP32 [..., in]; or [..., in / 2, 2] if two codes share a byte."""
        if tensor.bits == 8:
            return self.cast(self.op("Gather", self._codes(name, tensor), ids), TensorProto.FLOAT)
        # Gather does not support elements of 4 bits, so gather whole bytes and split them by arithmetic.
        pairs = self.op("Gather", self.table(f"{name}.bytes", tensor.codes), ids)
        pairs = self._unsqueezed(self.cast(pairs, TensorProto.FLOAT))
        high = self.op("Floor", self.op("Mul", pairs, self.scalar(1 / 16)))
        low = self.op("Sub", pairs, self.op("Mul", high, self.scalar(16)))
        codes = self.op("Concat", low, high, axis=-1)
        if not tensor.is_signed:
            return codes
        # Signed codes are in two's complement of 4 bits: 8 to 15 stand for -8 to -1.
        wrapped = self.op("Sub", codes, self.scalar(16))
        return self.op("Where", self.op("Less", codes, self.scalar(8)), codes, wrapped)

    def _as_float(self, x: str, values: Array) -> str:
        return x if values.dtype == np.float32 else self.cast(x, TensorProto.FLOAT)

    def _unsqueezed(self, x: str) -> str:
        return self.op("Unsqueeze", x, self.ints(-1))

    def _hold(self, name: str, elem_type: int, shape: Sequence[int], data: Array) -> str:
        if name not in self._initializers:
            tensor, held = held_tensor(name, elem_type, tuple(shape), data)
            if held.nbytes < LARGE_BYTES:
                # Graph passes read small constants, such as shapes and axes, so these are stored in the model itself.
                tensor = TensorProto(name=name, data_type=elem_type, dims=shape, raw_data=held.tobytes())
            else:
                self._held[name] = held
            self._initializers[name] = tensor
        return name


def _scales_and_zeros(tensor: PackedTensor) -> tuple[Array, Array | None]:
    """Scales and zero points, FP32 [out, blocks], so that weights are (code - zero point) * scale. The zero points are
    None if the matrix has neither zero points nor offsets.

    The scales are FP32, since a DequantizeLinear with FP16 scales rounds its result to FP16.
    """
    scales = tensor.scales.astype(np.float32, copy=False)
    if tensor.offsets is None:
        return scales, None if tensor.zero_points is None else tensor.zero_points.astype(np.float32)
    # In a block of scale 0, all weights equal the offset, which no zero point expresses. Replace the scale by 1e-10
    # times the offset: the product of a code (up to 255) and this scale is too small to change the offset in FP32.
    scales = np.where(scales == 0, np.abs(tensor.offsets) * np.float32(1e-10), scales)
    return scales, -np.divide(tensor.offsets, scales, out=np.zeros_like(scales), where=scales != 0)
