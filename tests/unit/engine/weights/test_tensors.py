import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from triune.core.errors import InvalidArgumentError
from triune.engine.weights.tensors import Bits, PackedTensor, pack_nibbles, unpack_nibbles


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("is_signed", [True, False])
def test_means_what_onnx_dequantize_linear_computes(bits: Bits, is_signed: bool) -> None:
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 256, (6, 96 * bits // 8), np.uint8)
    scales = rng.standard_normal((6, 3)).astype(np.float32)
    zero_points = None if is_signed else rng.integers(0, 1 << bits, (6, 3), np.uint8)
    packed = PackedTensor(codes, bits, scales, zero_points, 32, "test")

    kind = TensorProto.DataType.Value(f"{'' if is_signed else 'U'}INT{bits}")
    inputs = ["codes", "scales"]
    initializers = [
        helper.make_tensor("codes", kind, packed.shape, packed.codes.tobytes(), raw=True),
        helper.make_tensor("scales", TensorProto.FLOAT, scales.shape, scales.tobytes(), raw=True),
    ]
    if packed.packed_zero_points is not None:
        inputs.append("zeros")
        raw = packed.packed_zero_points.tobytes()
        initializers.append(helper.make_tensor("zeros", kind, scales.shape, raw, raw=True))
    node = helper.make_node("DequantizeLinear", inputs, ["y"], axis=1, block_size=32)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph([node], "g", [], [output], initializers), opset_imports=[helper.make_opsetid("", 23)]
    )
    (truth,) = ReferenceEvaluator(model).run(None, {})
    assert packed.shape == (6, 96)
    np.testing.assert_array_equal(packed.dequantize(), truth)


def test_an_odd_number_of_zero_points_is_packed() -> None:
    zero_points = np.array([[1], [2], [15]], np.uint8)
    packed = PackedTensor(np.zeros((3, 16), np.uint8), 4, np.ones((3, 1), np.float32), zero_points, 32, "test")
    assert packed.packed_zero_points is not None
    assert packed.packed_zero_points.tolist() == [0x21, 0x0F]


def test_nibbles_come_back() -> None:
    values = np.arange(16, dtype=np.uint8).reshape(2, 8)
    assert pack_nibbles(values)[0].tolist() == [0x10, 0x32, 0x54, 0x76]
    np.testing.assert_array_equal(unpack_nibbles(pack_nibbles(values)), values)


def test_scales_that_do_not_fit_the_codes_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"needs scales \[2, 4\].*; it has \{'scales': \[2, 3\]\}"):
        PackedTensor(np.zeros((2, 64), np.uint8), 4, np.ones((2, 3), np.float32), None, 32, "test")
