"""Each pass: given -> result."""

import tracemalloc

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.graphs import model_of, ops_of
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.check import evaluate
from triune.graph.normalize import normalize
from triune.graph.passes.branches import Branches
from triune.graph.passes.fold import MAX_ELEMENTS, Fold
from triune.graph.passes.hard_swish import HardSwish
from triune.graph.passes.infer import Infer
from triune.graph.passes.means import Means
from triune.graph.passes.narrow import Narrow
from triune.graph.passes.narrow_values import narrow_array
from triune.graph.passes.tidy import Tidy
from triune.graph.passes.upgrade import Upgrade


def constants_of(model: onnx.ModelProto) -> dict[str, object]:
    return {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t).tolist()
        for node in model.graph.node
        if node.op_type == "Constant"
    }


def test_fold_computes_what_depends_on_constants_alone() -> None:
    text = """
    agraph (float[2] x) => (float[2] y) {
      a = Constant <value = float[2] {1.0, 2.0}> ()  b = Constant <value = float[2] {3.0, 4.0}> ()
      c = Mul (a, b)  y = Add (x, c)
    }"""
    assert constants_of(Fold()(Infer()(model_of(text))))["c"] == [3.0, 8.0]


def test_fold_follows_shapes_by_element() -> None:
    text = """
    agraph (float[N,128,768] x) => (int64[2] y, int64[K] z) {
      s = Shape (x)  i = Constant <value = int64[2] {1, 2}> ()  y = Gather (s, i)
      j = Constant <value = int64[1] {0}> ()  z = Gather (s, j)
    }"""
    model = Fold()(Infer()(model_of(text)))
    assert constants_of(model)["y"] == [128, 768]
    assert "z" not in constants_of(model)


def test_fold_wraps_what_a_cast_does_not_hold() -> None:
    text = "<int64[3] c = {9223372036854775807, 4294967297, -3}> { y = Cast <to = 6> (c) }"
    model = Fold()(Infer()(model_of(f"agraph () => (int32[3] y) {text}")))
    assert constants_of(model)["y"] == [-1, 1, -3]


def test_fold_gives_a_number_as_many_axes_as_it_is_given() -> None:
    text = """agraph (float[3,4] x) => (int64[?,?] y, int64[?] z)
    <int64[2] two = {0, 1}, int64[1] one = {0}, int64 i = {1}> {
      s = Shape (x)  n = Gather (s, i)  y = Unsqueeze (n, two)  z = Unsqueeze (n, one) }"""
    constants = constants_of(Fold()(Infer()(model_of(text))))
    assert (constants["y"], constants["z"]) == ([[4]], [4])


def test_fold_leaves_quantized_weights_and_large_results() -> None:
    text = f"""
    agraph () => (float[2] y, float[{MAX_ELEMENTS + 1}] z) {{
      q = Constant <value = int8[2] {{1, 2}}> ()  s = Constant <value = float {{0.5}}> ()
      y = DequantizeLinear (q, s)
      n = Constant <value = int64[1] {{{MAX_ELEMENTS + 1}}}> ()  z = Expand (s, n)
    }}"""
    assert {"DequantizeLinear", "Expand"} <= set(ops_of(Fold()(Infer()(model_of(text)))))


@pytest.mark.parametrize(
    "made",
    [
        "y = ConstantOfShape (n)",
        "y = Expand (one, n)",
        "y = Tile (one, n)",
        "o = Expand (one, m)  a = Reshape (o, row)  b = Reshape (o, column)  y = Add (a, b)",
    ],
)
def test_fold_computes_nothing_large_whose_size_it_has_just_computed(made: str) -> None:
    """Of sizes that are computed in floats inference tells nothing; 256 MB would be written and dropped."""
    text = f"""agraph () => (float[?,?] y)
    <float[2] f = {{8192, 8192}}, float[1,1] one = {{1}}, int64[2] row = {{1, -1}},
     int64[2] column = {{-1, 1}}, int64[1] zero = {{0}}> {{ n = Cast <to = 7> (f)  m = Gather (n, zero)  {made} }}"""
    model = Infer()(model_of(text))
    tracemalloc.start()
    kept = ops_of(Fold()(model))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "Cast" not in kept
    assert peak_bytes < 1 << 26


def test_branches_take_the_branch_of_a_known_condition() -> None:
    text = """
    agraph (float[2] x) => (float[2] y) {
      c = Constant <value = bool {0}> ()
      y = If (c) <then_branch = g1 () => (float[2] a) { a = Neg (x) },
              else_branch = g2 () => (float[2] b) { b = Abs (x) }>
    }"""
    model = Branches()(model_of(text))
    assert ops_of(model) == ["Constant", "Abs", "Identity"]
    assert evaluate(model, {"x": np.array([-1, 2], np.float32)})[0].tolist() == [1, 2]


def test_branches_with_the_same_names_stay_apart() -> None:
    text = """
    agraph (float[2] x) => (float[2] y, float[2] z) <bool c = {1}, bool d = {0}> {
      y = If (c) <then_branch = g1 () => (float[2] a) <float k = {2}> { m = Mul (x, k)  a = Add (m, k) },
              else_branch = g2 () => (float[2] a) <float k = {3}> { m = Mul (x, k)  a = Add (m, k) }>
      z = If (d) <then_branch = g3 () => (float[2] a) <float k = {4}> { m = Mul (x, k)  a = Add (m, k) },
              else_branch = g4 () => (float[2] a) <float k = {5}> {
                e = Constant <value = bool {1}> ()
                a = If (e) <then_branch = g5 () => (float[2] b) <float h = {6}> { m = Mul (x, h)  b = Add (m, k) },
                        else_branch = g6 () => (float[2] b) { b = Neg (x) }> }>
    }"""
    model = model_of(text)
    y, z = evaluate(normalize(model), {"x": np.array([-1, 2], np.float32)})
    assert y.tolist() == [0, 6]
    assert z.tolist() == [-1, 17]


@pytest.mark.parametrize(
    "scaled",
    [
        "<float[1] c = {0.25}, int64[1] a = {-1}> { s = ReduceSum (x, a)  y = Mul (c, s) }",
        "<float c = {4}, int64[1] a = {1}> { s = ReduceSum (x, a)  y = Div (s, c) }",
        # Of another number, of one that is not known, of a sum that nothing is taken of.
        "<float c = {0.5}, int64[1] a = {1}> { s = ReduceSum (x, a)  y = Mul (s, c) }",
        "<float c = {0.33333333}, int64[1] a = {0}> { s = ReduceSum (z, a)  t = Mul (s, c)  y = Add (x, t) }",
        "<float c = {1}> { s = ReduceSum <noop_with_empty_axes = 1> (x)  y = Mul (s, c) }",
    ],
)
def test_means_are_written_as_sums(scaled: str) -> None:
    model = Infer()(model_of(f"agraph (float[3,4] x, float[N,4] z) => (float[?,?] y) {scaled}"))
    inputs = {"x": np.arange(12, dtype=np.float32).reshape(3, 4), "z": np.ones((5, 4), np.float32)}
    before = evaluate(model, inputs)
    is_mean = "4}" in scaled or "0.25" in scaled
    ops = ops_of(Tidy()(Means()(model)))
    assert ("ReduceMean" in ops, "ReduceSum" in ops) == (is_mean, not is_mean)
    np.testing.assert_allclose(evaluate(model, inputs)[0], before[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "op", "factor", "is_mean"),
    [
        ("float", "Div", 1001, True),
        ("float", "Div", 1000, False),
        ("float", "Mul", np.float32(1 / 1001), True),
        ("float", "Mul", np.nextafter(np.float32(1 / 1001), np.float32(1)), False),
        ("float16", "Mul", np.float16(1 / 1001), True),
        ("float16", "Mul", np.float16(1 / 1000), False),
    ],
)
def test_a_sum_over_almost_as_many_is_no_mean(kind: str, op: str, factor: float, is_mean: bool) -> None:
    text = f"<int64[1] a = {{1}}> {{ s = ReduceSum (x, a)  y = {op} (s, c) }}"
    model = model_of(f"agraph ({kind}[1,1001] x) => ({kind}[1,1] y) {text}")
    dtype = np.float16 if kind == "float16" else np.float32
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(factor, dtype), "c"))
    assert ("ReduceMean" in ops_of(Means()(Infer()(model)))) is is_mean


def test_tidy_removes_what_nobody_reads() -> None:
    text = """
    agraph (float[2] x) => (float[2] y) {
      c = Constant <value = float[2] {1.0, 2.0}> ()  unused = Neg (x)  same = Identity (x)  y = Add (same, c)
    }"""
    model = Tidy()(model_of(text))
    assert ops_of(model) == ["Add"]
    assert list(model.graph.node[0].input) == ["x", "c"]
    assert [tensor.name for tensor in model.graph.initializer] == ["c"]


def narrow(text: str) -> onnx.ModelProto:
    return Narrow()(Infer()(Tidy()(Fold()(Infer()(model_of(text))))))


def test_narrow_leaves_four_types_and_a_cast_where_onnx_insists_on_int64() -> None:
    model = narrow(
        """
        agraph (double[2,3] x, int64[K] shape) => (double[N,M] y, int64[2] s) {
          y = Reshape (x, shape)  s = Shape (x)
        }"""
    )
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert kinds == {"x": TensorProto.FLOAT, "shape": TensorProto.INT32, "y": TensorProto.FLOAT, "s": TensorProto.INT32}
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, s = session.run(None, {"x": x, "shape": np.array([3, 2], np.int32)})
    assert y.tolist() == x.reshape(3, 2).tolist()
    assert s.tolist() == [2, 3]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_small_integers_wrap_as_they_did(dtype: type[np.integer]) -> None:
    name = helper.tensor_dtype_to_string(helper.np_dtype_to_tensor_dtype(np.dtype(dtype))).split(".")[1].lower()
    model = narrow(f"agraph ({name}[3] a, {name}[3] b) => ({name}[3] y) {{ y = Add (a, b) }}")
    info = np.iinfo(dtype)
    a, b = np.array([info.max, info.min, 3], dtype), np.array([1, info.min, 4], dtype)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"a": narrow_array("a", a), "b": narrow_array("b", b)})
    with np.errstate(over="ignore"):
        assert result.tolist() == (a + b).tolist()


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("y = Div (a, b)", [-128, -127, -42]),
        (
            'i = Constant <value_ints = [0, 0, 1]> ()  y = ScatterElements <reduction = "add"> (a, i, a)',
            [127, -3, 126],
        ),
        (
            'i = Constant <value = int64[3,1] {0, 0, 1}> ()  y = ScatterND <reduction = "mul"> (a, i, a)',
            [0, -126, 126],
        ),
    ],
)
def test_quotients_and_sums_that_are_scattered_wrap_too(nodes: str, expected: list[int]) -> None:
    model = narrow(f"agraph (int8[3] a, int8[3] b) => (int8[3] y) {{ {nodes} }}")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    a, b = np.array([-128, 127, 126], np.int8), np.array([-1, -1, -3], np.int8)
    feeds = {"a": narrow_array("a", a), "b": narrow_array("b", b)}
    (result,) = session.run(None, {each.name: feeds[each.name] for each in session.get_inputs()})
    assert result.tolist() == expected


def test_quantized_tensors_keep_their_integers() -> None:
    model = narrow(
        """
        agraph (float[2] x) => (float[2] y) {
          s = Constant <value = float {0.5}> ()  z = Constant <value = uint8 {3}> ()
          q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z)
        }"""
    )
    assert [op for op in ops_of(model) if op != "Cast"] == ["QuantizeLinear", "DequantizeLinear"]
    assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.FLOAT, TensorProto.UINT8}


def test_narrow_names_the_constant_that_does_not_fit() -> None:
    with pytest.raises(UnsupportedError, match="constant 'c' holds 4294967296, which does not fit into int32"):
        narrow(
            "agraph (int64[1] x) => (int64[1] y) { c = Constant <value = int64[1] {4294967296}> ()  y = Add (x, c) }"
        )


@pytest.mark.parametrize("tiny", ["1e-300", "-1e-50", "2.2250738585072014e-308"])
def test_narrow_names_the_constant_that_would_be_zero(tiny: str) -> None:
    """A guard of `log(x + 1e-300)` must not vanish in silence."""
    with pytest.raises(UnsupportedError, match="constant 'c' holds .*, which fp32 rounds to 0: .* at least 1.175e-38"):
        narrow(
            f"agraph (double[1] x) => (double[1] y) {{ c = Constant <value = double {{{tiny}}}> ()  y = Add (x, c) }}"
        )


def test_elements_that_fp32_has_not_stay_apart_from_zero() -> None:
    model = narrow(
        """
        agraph (double[4] x) => (double[4] y) {
          c = Constant <value = double[4] {1, 1e-60, -1e-60, 0}> ()  y = Div (x, c)
        }"""
    )
    (constant,) = (numpy_helper.to_array(each) for each in model.graph.initializer)
    tiny = np.finfo(np.float32).tiny
    assert constant.tolist() == [1, tiny, -tiny, 0]


def test_the_end_of_a_slice_may_be_as_far_as_it_likes() -> None:
    model = narrow(
        """
        agraph (float[5] x) => (float[N] y) {
          a = Constant <value = int64[1] {1}> ()  b = Constant <value = int64[1] {9223372036854775807}> ()
          y = Slice (x, a, b)
        }"""
    )
    assert evaluate(model, {"x": np.arange(5, dtype=np.float32)})[0].tolist() == [1, 2, 3, 4]


def test_narrow_array_checks_the_range() -> None:
    assert narrow_array("x", np.array([2**31 - 1])).dtype == np.int32
    with pytest.raises(InvalidArgumentError, match="input 'x' holds 2147483648; the model computes in int32"):
        narrow_array("x", np.array([0, 2**31]))
    assert narrow_array("x", np.array([-np.inf, 3e38])).tolist() == [-np.inf, np.float32(3e38)]
    with pytest.raises(InvalidArgumentError, match=r"holds 1e\+300; the model computes in fp32, up to 3.403e\+38"):
        narrow_array("x", np.array([1, -1e300]))
    with pytest.raises(InvalidArgumentError, match="holds 4294967295"):
        narrow_array("x", np.array([2**32 - 1], np.uint32))


@pytest.mark.parametrize(
    ("written", "is_whole"),
    [
        ("{ s = Add (x, three)  c = Clip (s, low, high)  m = Mul (x, c)  y = Mul (m, sixth) }", True),
        ("{ s = Add (three, x)  c = Clip (s, low, high)  y = Mul (c, x) }", True),
        # Constants that a compiler has folded into one another.
        (
            "{ a = Add (x, half)  s = Add (x, more)  c = Clip (s, low, high)  m = Mul (a, c)  y = Mul (sixth, m) }",
            True,
        ),
        ("{ s = Add (x, half)  c = Clip (s, low, high)  y = Mul (x, c) }", False),
        # Nearly three, and a sum of another shape than x.
        ("{ a = Add (x, far)  s = Add (x, further)  c = Clip (s, low, high)  y = Mul (a, c) }", False),
        (
            "{ s = Add (x, rows)  c = Clip (s, low, high)  m = Mul (x, c)  y = ReduceMax <keepdims = 0> (m, first) }",
            False,
        ),
        ("{ s = Add (x, three)  c = Clip (s, low, three)  y = Mul (x, c) }", False),
        ("{ s = Add (z, three)  c = Clip (s, low, high)  y = Mul (x, c) }", False),
        # What is read twice keeps its value.
        ("{ s = Add (x, three)  c = Clip (s, low, high)  m = Mul (x, c)  n = Mul (m, sixth)  y = Add (n, m) }", True),
    ],
)
def test_hard_swish_is_one_operator(written: str, is_whole: bool) -> None:
    constants = "float three = {3}, float low = {0}, float high = {6}, float sixth = {0.16666667}, "
    constants += "float[1] half = {0.5}, float[1] more = {3.5000002}, float far = {-1}, float further = {2.00001}, "
    constants += "float[2,1] rows = {3, 3}, int64[1] first = {0}"
    text = f"agraph (float[N] x, float[N] z) => (float[N] y) <{constants}> {written}"
    inputs = {"x": np.linspace(-5, 5, 41, dtype=np.float32), "z": np.ones(41, np.float32)}
    (expected,) = evaluate(model_of(text, opset=21), inputs)
    model = Tidy()(HardSwish()(model_of(text, opset=21)))
    assert ("HardSwish" in ops_of(model), "Clip" in ops_of(model)) == (is_whole, not is_whole)
    np.testing.assert_allclose(evaluate(model, inputs)[0], expected, rtol=1e-5, atol=1e-5)


def test_softmax_of_old_keeps_its_dimensions_where_only_their_number_is_known() -> None:
    """Before operator set 13 it flattened what it read, which says nothing where its axis is the last."""
    text = """
    agraph (float[N,6] x, int64[2] cut) => (float[?,?,?] y) <int64[1] two = {2}> {
      s = Concat <axis = 0> (cut, two)  r = Reshape (x, s)  t = Transpose <perm = [1, 0, 2]> (r)
      y = Softmax <axis = 2> (t)
    }"""
    model = Upgrade()(model_of(text, opset=11))
    assert ops_of(model) == ["Concat", "Reshape", "Transpose", "Softmax"]
    x, cut = np.arange(12, dtype=np.float32).reshape(2, 6), np.array([2, 3])
    powers = np.exp(x.reshape(2, 3, 2).transpose(1, 0, 2) % 2)
    found = evaluate(model, {"x": x % 2, "cut": cut})[0]
    np.testing.assert_allclose(found, powers / powers.sum(-1, keepdims=True), rtol=1e-6)


def test_the_length_of_a_computed_shape_is_a_rank() -> None:
    text = """
    agraph (float[N,6] x, int64[3] s) => (y) { r = Reshape (x, s)  t = Relu (r)  y = Reshape (t, s) }"""
    model = Infer()(model_of(text))
    ranks = {info.name: len(info.type.tensor_type.shape.dim) for info in (*model.graph.value_info, *model.graph.output)}
    assert ranks == {"r": 3, "t": 3, "y": 3}


def test_what_is_no_tensor_does_not_become_one() -> None:
    model = model_of("agraph (seq(float[2]) s, optional(float[2]) o) => (seq(float[2]) t) { t = Identity (s) }")
    kinds = [value.type for value in (*model.graph.input, *model.graph.output)]
    before = [kind.SerializeToString() for kind in kinds]
    narrowed = Narrow()(model)
    after = [value.type.SerializeToString() for value in (*narrowed.graph.input, *narrowed.graph.output)]
    assert after == before
