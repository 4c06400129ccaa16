import ml_dtypes
import numpy as np
import pytest

from triune.core.errors import InvalidArgumentError, TriuneError, UnsupportedError
from triune.coreml.mil import Constant, DType
from triune.coreml.mil_text.lexer import Words
from triune.coreml.mil_text.values import read_value_text
from triune.coreml.read_values import read_value
from triune.coreml.weights import NoWeights


def value(text: str) -> Constant:
    words = Words(text, "model.mil")
    proto = read_value_text(words)
    words.expect_kind("end", "the end")
    return read_value(proto, NoWeights(), "value")


@pytest.mark.parametrize(
    ("text", "dtype", "expected"),
    [
        ("fp16(0x1p-24)", DType.FP16, np.float16(2**-24)),
        ("tensor<fp16, []>(-0x1.5p-17)", DType.FP16, np.float16(-1.3125 * 2**-17)),
        ("tensor<fp16, [3]>([-inf, inf, 0x1.ffcp+15])", DType.FP16, np.array([-np.inf, np.inf, 65504], np.float16)),
        ("fp32(0x1.f0a3d8p-1)", DType.FP32, np.float32(0.97)),
        ("tensor<fp32,[2,1]>([[1e-5],[-12]])", DType.FP32, np.array([[1e-5], [-12]], np.float32)),
        ("fp32(0x1p-149)", DType.FP32, np.float32(1e-45)),
        ("fp64(0x1.999999999999ap-4)", DType.FP64, np.float64(0.1)),
        ("bf16(0x1.8p+0)", DType.BF16, ml_dtypes.bfloat16(1.5)),
        ("int8(-128)", DType.INT8, np.int8(-128)),
        ("tensor<uint8, [2]>([0, 255])", DType.UINT8, np.array([0, 255], np.uint8)),
        ("int32(-2147483648)", DType.INT32, np.int32(-(2**31))),
        ("uint32(4294967295)", DType.UINT32, np.uint32(2**32 - 1)),
        ("int64(-9223372036854775808)", DType.INT64, np.int64(-(2**63))),
        ("uint64(18446744073709551615)", DType.UINT64, np.uint64(2**64 - 1)),
        ("tensor<int4, [3]>([-8, 7, -1])", DType.INT4, np.array([-8, 7, -1], np.int8)),
        ("tensor<uint3, [5]>([7, 0, 5, 2, 6])", DType.UINT3, np.array([7, 0, 5, 2, 6], np.uint8)),
        ("tensor<uint1, [2, 5]>([[1,0,0,0,1],[0,1,1,0,1]])", DType.UINT1, [[1, 0, 0, 0, 1], [0, 1, 1, 0, 1]]),
        ("tensor<bool, [2]>([true, false])", DType.BOOL, np.array([True, False])),
        ("tensor<int32, [0]>([])", DType.INT32, np.zeros(0, np.int32)),
        ("tensor<fp32, [2, 0]>([[], []])", DType.FP32, np.zeros((2, 0), np.float32)),
        ('string("a \\"b\\" \\\\ \\n, (c]")', DType.STRING, np.array('a "b" \\ \n, (c]', object)),
        ('tensor<string, [2]>(["", "ü"])', DType.STRING, np.array(["", "ü"], object)),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_tensors(text: str, dtype: DType, expected: object) -> None:
    constant = value(text)
    assert constant.dtype is dtype
    assert isinstance(constant.value, np.ndarray)
    assert constant.value.dtype == dtype.numpy
    np.testing.assert_array_equal(constant.value, np.asarray(expected, dtype.numpy))


def test_not_a_number() -> None:
    assert np.isnan(value("tensor<fp32, [2]>([nan, -nan])").value).all()


def test_lists() -> None:
    constant = value('list<string, 2>(["a", string("b")])')
    assert (constant.dtype, [str(each) for each in constant.value]) == (DType.STRING, ["a", "b"])
    ranges = value("list<tensor<int32, [2]>, ?>([[0, 4], [1, 2]])").value
    np.testing.assert_array_equal(np.stack(ranges), [[0, 4], [1, 2]])


def test_blobs() -> None:
    for text, offset in (("string", "uint64"), ("tensor<string, []>", "tensor<uint64, []>")):
        blob = f'BLOBFILE(path = {text}("@model_path/weights/weight.bin"), offset = {offset}(128))'
        proto = read_value_text(Words(f"tensor<fp16, [2, 2]>({blob})", "model.mil"))
        assert (proto.blobFileValue.fileName, proto.blobFileValue.offset) == ("@model_path/weights/weight.bin", 128)


def test_dictionaries_and_tuples_of_attributes() -> None:
    text = (
        "tuple<tuple<string, dict<string, tensor<int32, [?]>>>,"
        " tuple<string, dict<string, list<tensor<int32, [2]>, ?>>>>"
        '((("DefaultShapes", {{"x", [1, 4]}, {"z", [2]}}), ("RangeDims", {{"x", [[1, 8], [4, 4]]}})))'
    )
    (name, defaults), (_, ranges) = (
        each.immediateValue.tuple.values for each in read_value_text(Words(text, "m")).immediateValue.tuple.values
    )
    assert list(name.immediateValue.tensor.strings.values) == ["DefaultShapes"]
    pairs = defaults.immediateValue.dictionary.values
    assert [each.key.immediateValue.tensor.strings.values[0] for each in pairs] == ["x", "z"]
    assert np.frombuffer(pairs[0].value.immediateValue.tensor.bytes.values, np.int32).tolist() == [1, 4]
    assert len(ranges.immediateValue.dictionary.values[0].value.immediateValue.list.values) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fp16(65520)", "line 1, column 6: the number does not fit into fp16"),
        ("fp32(0x1p+128)", "does not fit into fp32"),
        ("fp64(1e999)", "does not fit into a float"),
        ("fp64(0x1p+99999)", "does not fit into a float"),
        ("int8(128)", "does not fit into int8, which has -128 to 127"),
        ("uint4(16)", "does not fit into uint4, which has 0 to 15"),
        ("uint64(-1)", "does not fit into uint64"),
        (f"int32({'9' * 10_000})", "an integer is expected"),
        ("int32(1.5)", "an integer is expected"),
        ("int32(0x1p+0)", "an integer is expected"),
        ("int32(true)", "an integer is expected"),
        ("fp32(true)", "a number is expected"),
        ('fp32("1")', "a number is expected"),
        ("bool(1)", "'true' or 'false' is expected"),
        ("string(a)", "a string in quotes is expected"),
        ('string("a)', "a string does not end$"),
        (f'string("{"a" * (1 << 20)}")', "a string does not end within 1048576 characters, the longest that is read"),
        (f'string("{chr(92) * (1 << 20)}")', "a string does not end within 1048576 characters"),
        ('string("\\q")', r"the escape '\\q' in a string is not known"),
        ("tensor<int32, [2]>([1])", "1 elements in brackets; the type says 2"),
        ("tensor<int32, [2]>([1, 2, 3])", "3 elements in brackets; the type says 2"),
        ("tensor<int32, [2]>(1)", r"'\[' is expected, not '1'"),
        ("tensor<int32, [2, 2]>([1, 2])", r"'\[' is expected, not '1'"),
        ("tensor<int32, [1]>([1)", r"',' or '\]' is expected, not '\)'"),
        ("tensor<int32, [-1]>([1])", "a size is expected"),
        ("tensor<int32, [99999999999]>([1])", "a size is expected, from 0 to 2147483647"),
        (f"tensor<int32, [{'9' * 5000}]>([1])", "a size is expected"),
        (f"tensor<int32, [{', '.join(['1'] * 17)}]>(1)", "more than 16 dimensions"),
        ("tensor<int32>(1)", "',' is expected, not '>'"),
        ("state<tensor<fp16, [1]>>([1])", "a state has no value"),
        ("tuple<int32, int32>((1))", "a tuple of 1 values; its type has 2"),
        ("tuple<int32>((1, 2))", "a tuple of more than 1 values"),
        ("tensor<fp16, [1]>(BLOBFILE(path = int32(1), offset = uint64(64)))", "the path of a blob is expected"),
        ('fp16(BLOBFILE(path = string("a"), offset = int32(64)))', "the offset of a blob is expected, one uint64"),
        ('fp16(BLOBFILE(path = list<string, 1>(["a"]), offset = uint64(64)))', "the path of a blob is expected"),
        ('fp16(BLOBFILE(path = string("a")))', r"',' is expected, not '\)'"),
        ("", "a type is expected, not the end of the text"),
        ("int32", r"'\(' is expected, not the end of the text"),
        ("int32(", "an integer is expected"),
        ("int32(1", "is expected, not the end of the text"),
        ("int32(#)", "'#' is not part of MIL"),
        ("list<" * 5000, "more than 40 types, values or blocks within each other"),
        ("fp16(BLOBFILE(path = " * 5000, "more than 40 types, values or blocks within each other"),
    ],
    ids=lambda text: text[:50],
)
def test_what_is_malformed(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        value(text)
    assert str(caught.value).startswith("'model.mil', line 1, column ")


@pytest.mark.parametrize("text", ["fp8(1)", "tensor<float, [1]>([1])", "matrix<fp16>(1)"])
def test_types_that_are_not_known(text: str) -> None:
    with pytest.raises(UnsupportedError, match=r"line 1, column \d+: the type '\w+' is not known; there are bool,"):
        value(text)


def test_a_constant_needs_a_shape() -> None:
    with pytest.raises(TriuneError, match="shape is not known"):
        value("tensor<int32, [?]>([1, 2])")
