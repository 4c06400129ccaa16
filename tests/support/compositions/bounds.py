"""How far a right answer may differ from ONNX Runtime's, measured by adding small errors to every step.

Each runtime rounds intermediate results in its own way. So the program is run again with every intermediate float
multiplied by `1 + noise`, where the noise has the size of a rounding error. The changes of the outputs show which
differences rounding can explain. If all earlier operations are exact in IEEE arithmetic (a quotient, a sum), the
operand of a discontinuous operator (Floor, Cast, Less) gets no noise, since only one side of the jump is right.

A sum of many terms is rounded after each term, in an order that is not prescribed. So its error is proportional to the
size of the terms, even if the sum is near zero. That size is the operator's result for the absolute values of its
inputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

EXACT = frozenset(
    [
        *(
            "Add",
            "Sub",
            "Mul",
            "Div",
            "Neg",
            "Abs",
            "Sqrt",
            "Floor",
            "Ceil",
            "Round",
            "Sign",
            "Relu",
            "Max",
            "Min",
            "Clip",
        ),
        *("Cast", "Where", "Less", "Greater", "Equal", "LessOrEqual", "Not", "Mod", "Reciprocal", "MaxPool"),
        *("ReduceMax", "ReduceMin", "GlobalMaxPool", "ArgMax", "TopK", "Hardmax", "LeakyRelu", "PRelu"),
        *(
            "Transpose",
            "Reshape",
            "Flatten",
            "Squeeze",
            "Unsqueeze",
            "Slice",
            "Pad",
            "Tile",
            "Expand",
            "Concat",
            "Split",
        ),
        *("Gather", "GatherElements", "DepthToSpace", "SpaceToDepth", "QuantizeLinear", "DequantizeLinear"),
        *("ThresholdedRelu", "HardSwish", "Softsign", "HardSigmoid"),
    ]
)
"""Operators whose results any correct runtime gives to the last place, or nearly so."""

JUMPS = frozenset(
    [
        *("Floor", "Ceil", "Round", "Sign", "Cast", "Less", "Greater", "Equal", "LessOrEqual", "Mod", "QuantizeLinear"),
        *("ArgMax", "TopK", "Hardmax", "ThresholdedRelu"),
    ]
)
NAN_IS_UNDEFINED = frozenset(
    [
        *("Cast", "QuantizeLinear", "ArgMax", "TopK", "Hardmax", "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin"),
        *("ScatterElements", "Sign", "Mod", "Resize", "Conv", "ConvTranspose", "MatMul", "Gemm", "AveragePool"),
        *("Sigmoid", "ReduceLogSumExp"),
    ]
)
"""ONNX does not say what these give for values that are infinite or no numbers; ONNX Runtime's kernels differ."""

ERRORS_NEAR_ZERO = {"Elu": 2.0**-22, "Selu": 2.0**-22, "Celu": 2.0**-22, "Gelu": 2.0**-22, "Sigmoid": 2.0**-26}
"""The absolute errors of ONNX Runtime's kernels: e^x - 1 and 1 + tanh(x) cancel, and Sigmoid is 0 below -18."""

SUMS = frozenset(
    [
        *("MatMul", "Gemm", "Einsum", "Conv", "ConvTranspose", "ReduceSum", "ReduceMean", "CumSum"),
        *("AveragePool", "GlobalAveragePool"),
    ]
)
"""Operators that add up terms which may cancel."""

_RUNS = 10
_LARGEST_HALF = 60_000.0
_NEAR_OVERFLOW = 1e37


@dataclass(frozen=True)
class Precision:
    """The rounding errors of a precision.

    Attributes:
        step: the relative size of a rounding of one operation.
        smallest: the absolute size of a rounding near zero.
        floor: the error that is always allowed, relative to the largest number of the output.
    """

    step: float
    smallest: float
    floor: float


FP32 = Precision(2.0**-22, 1e-37, 2e-6)
FP16 = Precision(2.0**-10, 2.0**-24, 3e-3)


def session_of(model: ModelProto) -> Any:
    options: Any = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Oracle:
    """The right answers of a program, and the allowed differences from them."""

    def __init__(self, model: ModelProto, precision: Precision) -> None:
        self.floor = precision.floor
        self.model = model
        self._precision = precision
        self._names = [value.name for value in model.graph.output]
        self._all_names = [name for node in model.graph.node for name in node.output]
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._types = _types_of(model)
        self._watched = session_of(_watched(model))
        self._noisy: Any = None
        self._rounded: Any = None
        self._noises: dict[str, tuple[int, ...]] = {}

    def answers(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(zip(self._all_names, self._watched.run(self._all_names, dict(feed)), strict=True))
        return {name: found[name] for name in self._names}

    def why_unjudged(self, feed: Mapping[str, Any]) -> str:
        """Why any answer is accepted, because of ONNX or the precision; empty if answers can be judged."""
        found = dict(zip(self._all_names, self._watched.run(self._all_names, dict(feed)), strict=True))
        ops = {node.op_type for node in self.model.graph.node}
        is_half = self._precision is FP16
        seen = {**{name: np.asarray(array) for name, array in feed.items()}, **found}
        for name, array in seen.items():
            if array.dtype == np.int64 and np.any(np.abs(array.astype(np.float64)) > 2**31 - 1):
                return f"'{name}' leaves int32"
            if array.dtype != np.float32:
                continue
            if not np.all(np.isfinite(array)) and (ops & NAN_IS_UNDEFINED or is_half):
                return f"'{name}' is not finite"
            # Near the overflow, the order of a norm's multiplications decides whether it overflows.
            if np.any(np.abs(array) > _NEAR_OVERFLOW, where=np.isfinite(array)) and not ops <= EXACT:
                return f"'{name}' is at the end of fp32"
            if is_half and np.max(np.abs(array), initial=0) > _LARGEST_HALF:
                return f"'{name}' leaves fp16"
        return ""

    def allowed(self, feed: Mapping[str, Any], runs: int = _RUNS) -> dict[str, tuple[Any, Any]]:
        """For each output: the allowed error of each element, and the elements that may have any value."""
        found = dict(zip(self._all_names, self._watched.run(self._all_names, dict(feed)), strict=True))
        if self._noisy is None:
            # ONNX's inference and ONNX Runtime do not always agree on the output sizes of pools and convolutions.
            types = {name: (self._types[name][0], np.shape(array)) for name, array in found.items()}
            model, self._noises = _with_noise(self.model, {**self._types, **types}, self._precision is not FP16)
            self._noisy = session_of(model)
        constants = {each.name: numpy_helper.to_array(each) for each in self.model.graph.initializer}
        values = constants | dict(feed) | found
        clean = {name: found[name] for name in self._names}
        moved = {name: np.zeros(np.shape(array)) for name, array in clean.items()}
        free = {name: np.zeros(np.shape(array), bool) for name, array in clean.items()}
        if self._precision is FP16:
            self._rounded = self._rounded or session_of(_rounded(self.model, self._types))
            _add_moves(
                dict(zip(self._names, self._rounded.run(self._names, dict(feed)), strict=True)), clean, moved, free
            )
        near_zero = {name: self._error_near_zero(name, values) for name in self._noises}
        rng = np.random.default_rng(0)
        for _ in range(runs):
            noises: dict[str, Any] = {}
            for name, shape in self._noises.items():
                step, smallest = self._precision.step, self._precision.smallest
                by, plus = 1 + step * rng.uniform(-1, 1, shape), rng.uniform(-1, 1, shape)
                plus *= np.maximum(smallest, near_zero[name])
                # A number below the smallest one may become zero, which a Cast to bool maps to another value.
                is_lost = (np.abs(values[name]) < smallest) & (rng.uniform(0, 1, shape) < 0.5)
                # numpy's generator returns a scalar, not an array, for shape ().
                noises[f"{name}/by"] = np.asarray(np.where(is_lost, 0, by), np.float32)
                noises[f"{name}/plus"] = np.asarray(np.where(is_lost, 0, plus), np.float32)
            names = [f"{name}/noisy" if name in self._noises else name for name in self._names]
            noisy = dict(zip(self._names, self._noisy.run(names, {**feed, **noises}), strict=True))
            _add_moves(noisy, clean, moved, free)
        return {name: (4 * moved[name], free[name]) for name in clean}

    def _error_near_zero(self, name: str, values: Mapping[str, Any]) -> Any:
        maker = self._makers.get(name)
        if maker is None:
            return 0.0
        if maker.op_type in _PARTS:
            return self._precision.step * _PARTS[maker.op_type](maker, [values[each] for each in maker.input if each])
        if maker.op_type == "Resize":
            # The operator's result is a sum whose parts may cancel, while their rounding errors remain.
            return float(self._precision.step * np.max(np.abs(values[maker.input[0]]), initial=0.0))
        if maker.op_type in SUMS and self._precision is not FP16:
            # In fp16 the noise of the terms already has that size.
            return self._precision.step * _size_of_terms(self.model, maker, values)
        return ERRORS_NEAR_ZERO.get(maker.op_type, 0.0)


def _size_of_terms(model: ModelProto, node: NodeProto, values: Mapping[str, Any]) -> Any:
    """The sum of the terms' absolute values for each element of the node's result; zero where the sum is infinite."""
    alone = type(node)()
    alone.CopyFrom(node)
    for attribute in alone.attribute:
        if attribute.type == AttributeProto.FLOAT:
            attribute.f = abs(attribute.f)
    arrays = {name: np.asarray(values[name]) for name in node.input if name}
    feeds = {name: np.abs(each) if each.dtype == np.float32 else each for name, each in arrays.items()}
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(each.dtype), each.shape)
        for name, each in feeds.items()
    ]
    result = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
    terms = ModelProto()
    terms.CopyFrom(model)
    terms.graph.CopyFrom(helper.make_graph([alone], "terms", infos, [result]))
    (size,) = session_of(terms).run(None, feeds)
    return np.where(np.isfinite(size), size, 0.0)


def _parts_of_norm(node: NodeProto, inputs: Sequence[Any]) -> Any:
    """The size of the terms that cancel in x s + (b - mean s), s = scale / sqrt(variance + epsilon), in ONNX Runtime.

    Channels are axis 1.
    """
    x = np.asarray(inputs[0], np.float64)
    axes = tuple(range(2, x.ndim))
    epsilon = next((each.f for each in node.attribute if each.name == "epsilon"), 1e-5)
    if node.op_type == "BatchNormalization":
        mean, variance = (each.reshape(-1, *(1 for _ in axes)) for each in inputs[3:5])
    else:
        mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    factor = inputs[1].reshape(-1, *(1 for _ in axes)) / np.sqrt(variance + epsilon)
    return np.abs(x * factor) + np.abs(mean * factor)


def _parts_of_layer_norm(node: NodeProto, inputs: Sequence[Any]) -> Any:
    """The size of the terms that cancel in x s - mean s + b, s = scale / sqrt(variance + epsilon).

    The axes are the node's attribute `axis` and all later ones.
    """
    x = np.asarray(inputs[0], np.float64)
    attributes = {each.name: each for each in node.attribute}
    axis = attributes["axis"].i if "axis" in attributes else -1
    epsilon = attributes["epsilon"].f if "epsilon" in attributes else 1e-5
    axes = tuple(range(axis % x.ndim, x.ndim))
    factor = np.abs(inputs[1]) / np.sqrt(x.var(axes, keepdims=True) + epsilon)
    offset = np.abs(inputs[2]) if len(inputs) > 2 else 0.0
    return (np.abs(x) + np.abs(x.mean(axes, keepdims=True))) * factor + offset


_PARTS = {
    "InstanceNormalization": _parts_of_norm,
    "BatchNormalization": _parts_of_norm,
    "LayerNormalization": _parts_of_layer_norm,
}


def differences(clean: Any, actual: Any, floor: float) -> Any:
    """Which elements differ: by more than `floor` times the largest number, or because only one of the two is NaN."""
    clean, actual = np.asarray(clean), np.asarray(actual)
    if clean.dtype.kind in "biu":
        return clean != actual
    one, other = clean.astype(np.float64), actual.astype(np.float64)
    with np.errstate(invalid="ignore"):
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        finite = one[np.isfinite(one)]
        near = np.abs(one - other) <= floor * np.minimum(np.max(np.abs(finite), initial=0.0), 8 * np.abs(one) + 1)
    return ~(same | near)


def _add_moves(
    changed: Mapping[str, Any], clean: Mapping[str, Any], moved: dict[str, Any], free: dict[str, Any]
) -> None:
    """Record the distance of each element from its value without noise, and the elements of which only one is NaN or
    infinite.
    """
    for name, array in changed.items():
        one, other = clean[name].astype(np.float64), array.astype(np.float64)
        is_same = (one == other) | (np.isnan(one) & np.isnan(other))
        free[name] |= ~is_same & ~(np.isfinite(one) & np.isfinite(other))
        with np.errstate(invalid="ignore"):
            moved[name] = np.fmax(moved[name], np.abs(one - other))


def _types_of(model: ModelProto) -> dict[str, tuple[int, tuple[int, ...]]]:
    import onnx.shape_inference

    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    infos = (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input)
    constants = {each.name: (each.data_type, tuple(each.dims)) for each in model.graph.initializer}
    return constants | {
        each.name: (each.type.tensor_type.elem_type, tuple(dim.dim_value for dim in each.type.tensor_type.shape.dim))
        for each in infos
    }


def _watched(model: ModelProto) -> ModelProto:
    watched = ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    types = _types_of(model)
    for node in model.graph.node:
        for name in node.output:
            watched.graph.output.append(helper.make_tensor_value_info(name, *types[name]))
    return watched


def _rounded(model: ModelProto, types: Mapping[str, tuple[int, tuple[int, ...]]]) -> ModelProto:
    """Make a model with every float rounded to fp16. Finite numbers beyond fp16 become its largest number, since an
    overflow of fp16 does not excuse an error.
    """
    rounded = ModelProto()
    rounded.CopyFrom(model)
    del rounded.graph.node[:]
    stands_for: dict[str, str] = {}
    rounded.graph.initializer.append(helper.make_tensor("half/largest", TensorProto.FLOAT, [], [65504.0]))
    rounded.graph.initializer.append(helper.make_tensor("half/least", TensorProto.FLOAT, [], [-65504.0]))

    def round_to_half(name: str, rounded_name: str) -> None:
        rounded.graph.node.append(helper.make_node("Clip", [name, "half/least", "half/largest"], [f"{name}/held"]))
        rounded.graph.node.append(helper.make_node("Cast", [f"{name}/held"], [f"{name}/half"], to=TensorProto.FLOAT16))
        rounded.graph.node.append(helper.make_node("Cast", [f"{name}/half"], [f"{name}/whole"], to=TensorProto.FLOAT))
        rounded.graph.node.append(helper.make_node("IsInf", [name], [f"{name}/endless"]))
        rounded.graph.node.append(helper.make_node("Where", [f"{name}/endless", name, f"{name}/whole"], [rounded_name]))

    scales = {name for node in model.graph.node if node.op_type == "Resize" for name in node.input[1:]}
    for value in (*model.graph.input, *model.graph.initializer):
        if types[value.name][0] == TensorProto.FLOAT and value.name not in scales:
            round_to_half(value.name, f"{value.name}/rounded")
            stands_for[value.name] = f"{value.name}/rounded"
    for node in model.graph.node:
        changed = rounded.graph.node.add()
        changed.CopyFrom(node)
        for index, name in enumerate(node.input):
            changed.input[index] = stands_for.get(name, name)
        for attribute in changed.attribute:
            if attribute.name == "epsilon":
                # The small number that guards a division or a logarithm stays positive.
                attribute.f = max(attribute.f, FP16.smallest)
        for index, name in enumerate(node.output):
            if name and types[name][0] == TensorProto.FLOAT:
                changed.output[index] = f"{name}/exact"
                round_to_half(f"{name}/exact", name)
    return rounded


def _with_noise(
    model: ModelProto, types: Mapping[str, tuple[int, Sequence[int]]], is_exact: bool
) -> tuple[ModelProto, dict[str, tuple[int, ...]]]:
    """Make a model with noise on every intermediate float. Returns it, and the shape of each noise by the value's
    name.
    """
    noisy = ModelProto()
    noisy.CopyFrom(model)
    del noisy.graph.node[:]
    noises: dict[str, tuple[int, ...]] = {}
    stands_for: dict[str, str] = {}
    inexact: set[str] = set()

    def add_noise(name: str) -> None:
        elem_type, shape = types[name]
        if elem_type != TensorProto.FLOAT:
            return
        noises[name] = tuple(shape)
        for kind in ("by", "plus"):
            noisy.graph.input.append(helper.make_tensor_value_info(f"{name}/{kind}", elem_type, [None] * len(shape)))
        noisy.graph.node.append(helper.make_node("Mul", [name, f"{name}/by"], [f"{name}/scaled"]))
        noisy.graph.node.append(helper.make_node("Add", [f"{name}/scaled", f"{name}/plus"], [f"{name}/noisy"]))
        stands_for[name] = f"{name}/noisy"

    if not is_exact:
        # The scales of a Resize determine sizes, which rounding must not change.
        scales = {name for node in model.graph.node if node.op_type == "Resize" for name in node.input[1:]}
        for value in (*model.graph.input, *model.graph.initializer):
            if value.name not in scales:
                inexact.add(value.name)
                add_noise(value.name)
    for node in model.graph.node:
        changed = type(node)()
        changed.CopyFrom(node)
        is_rough = any(name in inexact for name in node.input)
        for index, name in enumerate(node.input):
            if node.op_type not in JUMPS or is_rough:
                changed.input[index] = stands_for.get(name, name)
        noisy.graph.node.append(changed)
        for name in node.output:
            if is_rough or node.op_type not in EXACT:
                inexact.add(name)
            add_noise(name)
    del noisy.graph.output[:]
    for value in model.graph.output:
        name = stands_for.get(value.name, value.name)
        elem_type, shape = types[value.name]
        noisy.graph.output.append(helper.make_tensor_value_info(name, elem_type, [None] * len(shape)))
    return noisy, noises
