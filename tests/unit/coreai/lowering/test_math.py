"""Products, norms, reductions and quantization, of fixed and of free sizes, by Apple's interpreter and ONNX Runtime."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.shape_inference import infer_shapes

from support.apple_lowered import check, compare
from support.lowered import BOOL, FLOAT, INT64, model_of
from support.odd_attributes import ATTRIBUTES, X, odd_model
from triune.core.errors import UnsupportedError
from triune.coreai.lowering import lower

RNG = np.random.default_rng(7)
FLOAT16, INT32 = TensorProto.FLOAT16, TensorProto.INT32
KINDS = {"f4": FLOAT, "f2": FLOAT16, "i4": INT32, "i8": INT64, "b1": BOOL}


def noise(*shape: int) -> Any:
    return np.asarray(RNG.random(shape, np.float32) * 2 - 1, np.float32)


def one(op: str, inputs: list[Any], folder: Path, *, is_free: bool = False, outputs: Any = None, **named: Any) -> Any:
    """A node `op` of inputs; with `is_free` all their sizes are free. `constants` are the operands behind them."""
    constants = named.pop("constants", [])
    names = [f"x{index}" for index in range(len(inputs))]
    more = [f"c{index}" if value is not None else "" for index, value in enumerate(constants)]
    values = [
        (name, KINDS[x.dtype.str[1:]], _free(name, x) if is_free else x.shape)
        for name, x in zip(names, inputs, strict=True)
    ]
    outputs = outputs or [("y", values[0][1], None)]
    node = helper.make_node(op, [*names, *more], [name for name, *_ in outputs], **named)
    known = {name: value for name, value in zip(more, constants, strict=True) if name}
    model = infer_shapes(model_of([node], values, outputs, **known))
    return check(model, dict(zip(names, inputs, strict=True)), folder)


def _free(name: str, x: Any) -> list[str]:
    return [f"{name}_{axis}" for axis in range(x.ndim)]


@pytest.mark.sampled(5)
@pytest.mark.parametrize("is_free", [False, True])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3,), (3,)),
        ((3,), (2, 3, 4)),
        ((2, 2, 3), (3,)),
        ((5, 1, 2, 3), (4, 3, 2)),
        ((2, 3), (3, 4)),
        ((2, 3), (6, 3, 1)),
    ],
)
def test_products(left: Any, right: Any, is_free: bool, tmp_path: Path) -> None:
    one("MatMul", [noise(*left), noise(*right)], tmp_path, is_free=is_free)
    whole = [RNG.integers(-(2**14), 2**14, shape).astype(np.int32) for shape in (left, right)]
    one("MatMul", whole, tmp_path, is_free=is_free)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("is_free", [False, True])
@pytest.mark.parametrize("turns", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("bias", [None, (), (4,), (2, 1)])
def test_gemm(bias: Any, turns: tuple[int, int], is_free: bool, tmp_path: Path) -> None:
    a = noise(*[(2, 3), (3, 2)][turns[0]])
    b = noise(*[(3, 4), (4, 3)][turns[1]])
    rest = [] if bias is None else [noise(*bias)]
    named = {"transA": turns[0], "transB": turns[1], "alpha": 0.5, "beta": 2.0}
    one("Gemm", [a], tmp_path, is_free=is_free, constants=[b, *rest], **named)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("is_free", [False, True])
@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"])
@pytest.mark.parametrize("named", [{}, {"keepdims": 0}, {"axes": [-1, 0]}, {"axes": [1], "keepdims": 0}])
def test_reductions(op: str, named: dict[str, Any], is_free: bool, tmp_path: Path) -> None:
    rest = {key: value for key, value in named.items() if key != "axes"}
    constants = [np.array(named["axes"])] if "axes" in named else []
    for x in (noise(2, 3, 4), RNG.integers(-2, 4, (2, 3, 4)).astype(np.int32)):
        one(op, [x], tmp_path, is_free=is_free, constants=constants, **rest)


@pytest.mark.parametrize("op", ["BitwiseAnd", "BitwiseOr", "BitwiseXor"])
def test_bits_of_64(op: str, tmp_path: Path) -> None:
    x = np.array([5, -7, 2**31 - 1, -(2**31), 0, -1])
    one(op, [x, np.roll(x, 1)], tmp_path)


@pytest.mark.parametrize("op", ATTRIBUTES)
def test_attributes_of_every_sign(op: str, tmp_path: Path) -> None:
    check(odd_model(op), {"x": X}, tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("op", ["Floor", "Ceil", "Round"])
def test_whole_numbers_near_large_ones_and_infinities(op: str, dtype: Any, tmp_path: Path) -> None:
    # From `bound` on there are no fractions.
    bound = 2.0 ** np.finfo(dtype).nmant
    x = [np.inf, -np.inf, np.nan, 2.5, -2.5, -0.3, 0.7, bound - 0.5, 0.5 - bound, bound + 1, -3 * bound, 6e4, -6e4]
    one(op, [np.array(x, dtype)], tmp_path)


def test_reductions_of_nothing_do_nothing(tmp_path: Path) -> None:
    one("ReduceSum", [noise(2, 3)], tmp_path, noop_with_empty_axes=1)
    one("ReduceMax", [noise()], tmp_path)


def test_truths_are_reduced(tmp_path: Path) -> None:
    for op in ("ReduceMax", "ReduceMin"):
        one(op, [RNG.random((3, 4)) > 0.5], tmp_path, constants=[np.array([1])])


@pytest.mark.sampled(5)
@pytest.mark.parametrize("is_free", [False, True])
@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("named", [{}, {"axis": -1, "keepdims": 0}, {"axis": 1, "select_last_index": 1}])
def test_places_of_extremes(op: str, named: dict[str, Any], is_free: bool, tmp_path: Path) -> None:
    outputs = [("y", INT64, None)]
    lowest = np.iinfo(np.int32).min
    for x in (RNG.integers(-2, 2, (3, 4, 3)).astype(np.float32), RNG.integers(lowest, lowest + 2, (3, 4, 3), np.int32)):
        one(op, [x], tmp_path, is_free=is_free, outputs=outputs, **named)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("is_free", [False, True])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_running_sums(exclusive: int, reverse: int, is_free: bool, tmp_path: Path) -> None:
    for x in (noise(3, 4), RNG.integers(-9, 9, (3, 4)).astype(np.int32)):
        for axis in (0, -1):
            constants = [np.array(axis)]
            one("CumSum", [x], tmp_path, is_free=is_free, constants=constants, exclusive=exclusive, reverse=reverse)


def test_an_axis_may_be_a_number_elsewhere(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "one"], ["a"]), helper.make_node("CumSum", ["a", "one"], ["y"])]
    model = model_of(nodes, [("x", INT32, [2, 3])], [("y", INT32, [2, 3])], one=np.array(1, np.int32))
    check(model, {"x": np.arange(6, dtype=np.int32).reshape(2, 3)}, tmp_path)


@pytest.mark.parametrize("is_free", [False, True])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 2, 2)])
def test_batch_normalization(shape: tuple[int, ...], is_free: bool, tmp_path: Path) -> None:
    parameters = [noise(3), noise(3), noise(3), noise(3) ** 2]
    one("BatchNormalization", [noise(*shape)], tmp_path, is_free=is_free, constants=parameters, epsilon=1e-3)
    one("BatchNormalization", [noise(*shape), *parameters], tmp_path, is_free=is_free)


def test_batch_normalization_in_training(tmp_path: Path) -> None:
    parameters = [noise(3), noise(3), noise(3), noise(3) ** 2]
    outputs = [(name, FLOAT, None) for name in ("y", "mean", "variance")]
    named = {"constants": parameters, "training_mode": 1, "momentum": 0.7, "outputs": outputs}
    one("BatchNormalization", [noise(2, 3, 4, 5)], tmp_path, **named)


@pytest.mark.parametrize("is_free", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 4, 5)])
def test_instance_normalization(shape: tuple[int, ...], is_free: bool, tmp_path: Path) -> None:
    one("InstanceNormalization", [noise(*shape)], tmp_path, is_free=is_free, constants=[noise(3), noise(3)])


@pytest.mark.parametrize("is_free", [False, True])
@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_layer_normalization(axis: int, is_free: bool, tmp_path: Path) -> None:
    form = (2, 3, 4)[axis:]
    outputs = [(name, FLOAT, None) for name in ("y", "mean", "inverse")]
    for constants in ([noise(*form)], [noise(*form), noise(*form)]):
        one("LayerNormalization", [noise(2, 3, 4)], tmp_path, is_free=is_free, constants=constants, axis=axis)
    one("LayerNormalization", [noise(2, 3, 4)], tmp_path, constants=[noise(*form)], axis=axis, outputs=outputs)


def test_squares_beyond_fp16_are_normalized(tmp_path: Path) -> None:
    x = (noise(2, 8) * 5000).astype(np.float16)
    node = helper.make_node("LayerNormalization", ["x", "s"], ["y"])
    model = model_of([node], [("x", FLOAT16, [2, 8])], [("y", FLOAT16, [2, 8])], s=np.ones(8, np.float16))
    check(model, {"x": x}, tmp_path, atol=2e-3)
    x = (noise(2, 3, 8) * 5000).astype(np.float16)
    node = helper.make_node("InstanceNormalization", ["x", "s", "b"], ["y"])
    ones = {"s": np.ones(3, np.float16), "b": np.zeros(3, np.float16)}
    model = model_of([node], [("x", FLOAT16, [2, 3, 8])], [("y", FLOAT16, [2, 3, 8])], **ones)
    check(model, {"x": x}, tmp_path, atol=2e-3)


def test_random_numbers_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("RandomUniform", [], ["r"], shape=[2])
    nodes = [node, helper.make_node("Add", ["x", "r"], ["y"])]
    with pytest.raises(UnsupportedError, match="no random numbers"):
        lower(model_of(nodes, [("x", FLOAT, [2])], [("y", FLOAT, [2])]), tmp_path / "m.aimodel")


QUANTIZED = [np.int8, np.uint8, np.int16, np.uint16, ml_dtypes.int4, ml_dtypes.uint4]


def there_and_back(scale: Any, zero: Any, shape: Any, **named: Any) -> ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **named),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **named),
    ]
    model = model_of(nodes, [("x", FLOAT, shape)], [("y", FLOAT, [None] * len(shape))], s=scale)
    model.graph.initializer.append(numpy_helper.from_array(zero, "z"))
    return model


@pytest.mark.parametrize("dtype", QUANTIZED)
@pytest.mark.parametrize("is_free", [False, True])
def test_quantization_saturates_and_rounds_to_even(dtype: Any, is_free: bool, tmp_path: Path) -> None:
    x = np.array([[1, 3, -1, 5, 9e5, -9e5], [0, 7, -3, 2, 4, 6]], np.float32)
    shape: Any = ["a", "b"] if is_free else x.shape
    check(there_and_back(np.float32(2), np.array(3, dtype), shape), {"x": x}, tmp_path)
    scale, zero = np.array([2, 0.5], np.float32), np.array([3, 1], dtype)
    check(there_and_back(scale, zero, shape, axis=0), {"x": x}, tmp_path)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, ml_dtypes.int4])
@pytest.mark.parametrize("is_free", [False, True])
def test_quantization_by_blocks(dtype: Any, is_free: bool, tmp_path: Path) -> None:
    scale, zero = RNG.random((3, 2, 2)).astype(np.float32), RNG.integers(0, 4, (3, 2, 2)).astype(dtype)
    shape: Any = [3, 6, 2]
    model = there_and_back(scale, zero, shape, axis=1, block_size=3)
    check(model, {"x": noise(3, 6, 2) * 4}, tmp_path)
    if is_free:
        nodes = there_and_back(scale, zero, ["a", 5, "b"], axis=1, block_size=3)
        check(nodes, {"x": noise(3, 5, 2) * 4}, tmp_path)


def test_scalars_are_quantized(tmp_path: Path) -> None:
    check(there_and_back(np.float32(0.5), np.array(3, np.uint8), []), {"x": np.array(1.3, np.float32)}, tmp_path)


def test_sums_of_products_are_dequantized(tmp_path: Path) -> None:
    node = helper.make_node("DequantizeLinear", ["x", "s"], ["y"])
    model = model_of([node], [("x", INT32, ["n"])], [("y", FLOAT, ["n"])], s=np.float32(0.25))
    check(model, {"x": np.array([2**20, -7], np.int32)}, tmp_path)


@pytest.mark.parametrize(
    ("dtype", "num_bits"), [(np.int8, 8), (np.uint8, 8), (ml_dtypes.int4, 4), (ml_dtypes.uint4, 4)]
)
@pytest.mark.parametrize("form", ["tensor", "axis", "block"])
def test_weights_stay_packed(dtype: Any, num_bits: int, form: str, tmp_path: Path) -> None:
    shape = (256, 512)
    info = ml_dtypes.iinfo(dtype)
    weight = RNG.integers(info.min, info.max + 1, shape).astype(dtype)
    parameters, named = {
        "tensor": ((), {}),
        "axis": ((512,), {"axis": 1}),
        "block": ((8, 512), {"axis": 0, "block_size": 32}),
    }[form]
    scale = RNG.random(parameters).astype(np.float32) / 100 + 0.01
    zero = RNG.integers(0, 4, parameters).astype(dtype)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["dense"], **named),
        helper.make_node("MatMul", ["x", "dense"], ["y"]),
    ]
    model = model_of(nodes, [("x", FLOAT, ["n", 256])], [("y", FLOAT, ["n", 512])], s=scale)
    model.graph.initializer.extend([numpy_helper.from_array(weight, "w"), numpy_helper.from_array(zero, "z")])
    lowered = lower(model, tmp_path / "m.aimodel")
    size = sum(file.stat().st_size for file in lowered.path.rglob("*") if file.is_file())
    assert size < weight.size * num_bits / 8 + scale.size * 12 + 8192
    compare(model, lowered.path, {"x": noise(3, 256)}, atol=1e-3, rtol=1e-3)


def test_softplus_of_negative_numbers_is_as_exact_as_of_positive_ones(tmp_path: Path) -> None:
    x = np.array([-30, -12, -4.2, -4.1, 0, 30], np.float32)
    found = one("Softplus", [x], tmp_path)
    np.testing.assert_allclose(found["y"], np.log1p(np.exp(x.astype(np.float64))), rtol=5e-6)
