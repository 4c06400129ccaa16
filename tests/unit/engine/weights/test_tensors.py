import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from triune.core.errors import InvalidArgumentError
from triune.engine.weights.tensors import Bits, DenseTensor, PackedTensor, joined_rows, pack_nibbles, unpack_nibbles


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


def packed(rows: int, seed: int, bits: Bits = 4, kind: str = "zero points", block_size: int = 32) -> PackedTensor:
    rng = np.random.default_rng(seed)
    blocks = rows, 64 // block_size
    return PackedTensor(
        rng.integers(0, 256, (rows, 64 * bits // 8), np.uint8),
        bits,
        rng.standard_normal(blocks).astype(np.float32),
        rng.integers(0, 1 << bits, blocks, np.uint8) if kind == "zero points" else None,
        block_size,
        "test",
        offsets=rng.standard_normal(blocks).astype(np.float32) if kind == "offsets" else None,
    )


@pytest.mark.parametrize("kind", ["zero points", "offsets", "signed"])
@pytest.mark.parametrize("bits", [4, 8])
def test_rows_of_one_form_are_joined(bits: Bits, kind: str) -> None:
    parts = [packed(rows, rows, bits, kind) for rows in (6, 2, 3)]
    joined = joined_rows(parts)
    assert isinstance(joined, PackedTensor)
    assert joined.codes.nbytes == sum(each.codes.nbytes for each in parts)
    np.testing.assert_array_equal(joined.dequantize(), np.concatenate([each.dequantize() for each in parts]))


def test_dense_rows_are_joined_in_their_type() -> None:
    parts = [DenseTensor(np.full((rows, 4), rows, np.float16), "F16") for rows in (2, 3)]
    joined = joined_rows(parts)
    assert isinstance(joined, DenseTensor)
    assert joined.values.dtype == np.float16
    assert joined.values[:, 0].tolist() == [2, 2, 3, 3, 3]


def test_rows_of_several_forms_are_not_joined() -> None:
    one = packed(4, 0)
    dense = DenseTensor(np.zeros((4, 64), np.float32), "F32")
    narrow = DenseTensor(np.zeros((4, 32), np.float32), "F32")
    half = DenseTensor(np.zeros((4, 64), np.float16), "F16")
    others = [packed(4, 1, 8), packed(4, 1, kind="offsets"), packed(4, 1, kind="signed"), packed(4, 1, block_size=16)]
    for pair in ([dense, one], [one, dense], [dense, narrow], [dense, half], *([one, other] for other in others)):
        assert joined_rows(pair) is None
