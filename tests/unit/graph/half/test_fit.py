"""Which nodes of attention compute in fp32: as few as can be."""

import numpy as np
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.half_cases import CASES, HalfCase
from support.half_cases.case import half_case, noise, number
from support.half_layout import Norm, normed
from support.llama import exported_llama
from support.lowered import plain_answers
from triune.graph.ane import Report
from triune.graph.conversion.options import ConversionOptions, Layout, Precision
from triune.graph.conversion.prepare import prepare, silent
from triune.graph.half import Fitted, fit_half
from triune.graph.normalize import normalize
from triune.graph.passes.narrow import Narrow
from triune.graph.weight_files import WeightFile


def _fitted(name: str) -> Fitted:
    (case,) = (case for case in CASES if case.name == name)
    return _fitted_of(case)


def _fitted_of(case: HalfCase, *, is_laid_out: bool = False) -> Fitted:
    file = WeightFile()
    return fit_half(Narrow(file)(normalize(case.model, file=file)), file, is_laid_out=is_laid_out)


def _kept(fitted: Fitted) -> set[str]:
    return {node.op_type for node in fitted.model.graph.node if not fitted.wide.isdisjoint(node.output)}


@pytest.mark.parametrize(
    "name", ["inverted", "gemm_scaled", "conv_divided", "reshaped_and_scaled", "channels_of_a_conv"]
)
@pytest.mark.parametrize("is_laid_out", [False, True])
def test_every_pass_leaves_what_the_model_computes_in_fp32(name: str, is_laid_out: bool) -> None:
    (case,) = (case for case in CASES if case.name == name)
    file = WeightFile()
    model = Narrow(file)(normalize(case.model, file=file))
    fit_half(model, file, is_laid_out=is_laid_out, check=case.feeds)


def test_masked_scores_and_their_softmax_stay_in_fp16() -> None:
    for name in ("inverted", "causal_and_inverted", "constant_lowest", "given_infinite", "attention_causal_and_given"):
        assert _kept(_fitted(name)).isdisjoint({"MatMul", "Softmax"})


def test_a_softmax_whose_masks_are_not_told_from_its_scores_computes_in_fp32_with_its_sum_and_a_note() -> None:
    fitted = _fitted("sum_of_given")
    assert _kept(fitted) == {"Add", "Softmax"}
    assert "its masks are beyond fp16" in fitted.notes[0]


@pytest.mark.parametrize(
    "name",
    [
        *("gemm_scaled", "conv_divided", "transposed_scaled", "relu_scaled", "layer_scaled", "two_readers"),
        *("channels_of_a_product", "channels_of_scores", "channels_of_a_conv", "two_readers_of_given"),
    ],
)
def test_products_that_are_scaled_down_stay_in_fp16(name: str) -> None:
    assert _kept(_fitted(name)) == set()


def test_layers_take_their_scale_into_their_weights() -> None:
    for name, expected in (
        ("gemm_scaled", ["Gemm"]),
        ("conv_divided", ["Conv"]),
        ("channels_of_a_conv", ["Conv", "Relu"]),
    ):
        assert [node.op_type for node in _fitted(name).model.graph.node] == expected


def test_a_scale_too_small_for_weights_is_shared_with_what_they_multiply() -> None:
    case = half_case("m", "p = MatMul (x, w) y = Mul (p, c)", {"c": number(1e-6), "w": noise(64, 8)}, x=noise(4, 64))
    fitted = _fitted_of(case)
    assert [node.op_type for node in fitted.model.graph.node] == ["Mul", "MatMul"]
    largest = max(np.abs(numpy_helper.to_array(each)).max() for each in fitted.model.graph.initializer)
    assert largest >= 2**-10


def test_ordinary_scales_of_what_layers_make_change_nothing() -> None:
    weights = {"w": noise(64, 8), "v": noise(64, 8, seed=1), "half": number(0.5), "root": number(0.7071)}
    for nodes in (
        # Of two layers, of a residual, and as a Gelu is written.
        "a = Gemm (x, w) b = Gemm (x, v) m = Mul (a, b) y = Mul (m, half)",
        "a = MatMul (x, w) b = MatMul (x, v) s = Sigmoid (b) m = Add (a, s) n = Mul (m, s) y = Mul (n, root)",
        "a = Gemm (x, w) h = Mul (a, half) r = Mul (a, root) e = Erf (r) y = Mul (h, e)",
    ):
        before = half_case("m", nodes, weights, x=noise(4, 64))
        fitted = _fitted_of(before)
        assert fitted.wide == set()
        assert [node.op_type for node in fitted.model.graph.node] == [node.op_type for node in before.model.graph.node]


def test_a_loop_that_carries_floats_is_in_fp32_whole_and_one_that_carries_none_is_not() -> None:
    constants = {"n": np.array(3), "go": np.array(True)}
    carries = """y = Loop (n, go, x) <body = g (int64 i, bool c, float[3] s) => (bool d, float[3] t) {
        d = Identity (c) e = Exp (s) t = Neg (e) }>"""
    fitted = _fitted_of(half_case("m", carries, constants, x=np.ones(3, np.float32)))
    assert fitted.wide == {"y"}
    assert "its state is carried from step to step" in fitted.notes[0]
    collects = """y = Loop (n, go) <body = g (int64 i, bool c) => (bool d, float[3] t) {
        d = Identity (c) t = Neg (x) }>"""
    assert _fitted_of(half_case("m", collects, constants, x=np.ones(3, np.float32))).wide == set()


def test_scores_are_scaled_before_their_product_which_stays_in_fp16() -> None:
    for name in ("divided_by_what_is_given", "reshaped_and_scaled", "summed_and_scaled"):
        fitted = _fitted(name)
        operators = [node.op_type for node in fitted.model.graph.node]
        assert min(operators.index(scale) for scale in ("Mul", "Div") if scale in operators) < operators.index("MatMul")
        assert _kept(fitted).isdisjoint({"MatMul", "Softmax"})


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("is_laid_out", [False, True])
def test_levels_of_16_bits_are_in_fp32_in_every_layout(is_laid_out: bool, dtype: type[np.integer]) -> None:
    nodes = "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = Tanh (d)"
    case = half_case("m", nodes, {"s": number(1e-3), "z": np.array(7, dtype)}, x=noise(2, 4))
    assert _kept(_fitted_of(case, is_laid_out=is_laid_out)) == {"QuantizeLinear", "DequantizeLinear"}


@pytest.mark.parametrize("is_laid_out", [False, True])
def test_levels_of_8_bits_are_in_fp16_of_what_layers_make(is_laid_out: bool) -> None:
    nodes = "m = MatMul (x, w) q = QuantizeLinear (m, s, z) d = DequantizeLinear (q, s, z) y = Neg (d)"
    case = half_case("m", nodes, {"s": number(0.1), "z": np.array(7, np.uint8), "w": noise(4, 4)}, x=noise(2, 4))
    assert _fitted_of(case, is_laid_out=is_laid_out).wide == set()


def test_what_is_around_transformers_in_the_neural_engines_layout_computes_as_elsewhere() -> None:
    options = ConversionOptions(precision=Precision.FP16, layout=Layout.ANE)
    with WeightFile() as file:
        prepared = prepare(exported_llama("traced"), options, Report(), silent, file)
    kept = [node for node in prepared.model.graph.node if not prepared.wide.isdisjoint(node.output)]
    # The angles of positions, which are given, and the mask, each once; nothing of the layers.
    angles = ["Cast", "Concat", "Cos", "Expand", "MatMul", "Sin", "Unsqueeze"]
    mask = ["Abs", "Cast", "Clip", "Less", "ReduceMax", "Sub", "Transpose", "Where"]
    assert sorted(node.op_type for node in kept) == sorted([*angles, *mask])


@pytest.mark.parametrize("norm", ["divided", "inverted", "power", "centred"])
def test_norms_are_in_fp32_but_in_the_neural_engines_layout(norm: Norm) -> None:
    case = HalfCase("m", normed(norm, 2), {})
    assert "ReduceMean" in _kept(_fitted_of(case))
    assert _fitted_of(case, is_laid_out=True).wide == set()


def test_what_is_no_norm_is_in_fp32_in_every_layout() -> None:
    nodes = "s = Mul (x, x) v = ReduceSum <keepdims = 1> (s, last) t = Add (v, e) r = Sqrt (t) y = Div (x, r)"
    case = half_case("m", nodes, {"e": number(1e-6), "last": np.array([-1])}, x=noise(4, 64))
    assert "ReduceSum" in _kept(_fitted_of(case, is_laid_out=True))


def test_a_root_that_others_read_too_is_what_it_was() -> None:
    nodes = """s = Mul (x, x) v = ReduceMean <keepdims = 1> (s, last) t = Add (v, e) r = Sqrt (t) d = Div (x, r)
      y = Add (d, r)"""
    case = half_case("m", nodes, {"e": number(1e-6), "last": np.array([-1])}, x=3 * noise(4, 64))
    (right,) = plain_answers(case.model, case.feeds)
    (actual,) = plain_answers(_fitted_of(case, is_laid_out=True).model, case.feeds)
    np.testing.assert_allclose(actual, right, rtol=1e-5)


@pytest.mark.parametrize(("lowest", "is_asked"), [(-1e4, False), (-1e9, True)])
def test_rows_are_asked_for_only_where_a_mask_may_take_their_scores(lowest: float, is_asked: bool) -> None:
    nodes = "p = MatMul (x, w) c = Cast <to = 1> (b) m = Mul (c, f) a = Add (p, m) y = Softmax <axis = -1> (a)"
    case = half_case("m", nodes, {"f": number(lowest), "w": noise(4, 4)}, x=noise(4, 4), b=np.ones((4, 4), np.bool_))
    assert ("Less" in {node.op_type for node in _fitted_of(case).model.graph.node}) == is_asked


def test_a_product_that_is_an_output_too_is_in_fp32_where_it_is_scaled_far_down() -> None:
    case = half_case("m", "p = MatMul (x, w) y = Mul (p, c)", {"w": noise(64, 8), "c": number(1e-4)}, x=noise(4, 64))
    case.model.graph.output.append(helper.make_tensor_value_info("p", TensorProto.FLOAT, None))
    assert _kept(_fitted_of(case)) == {"MatMul", "Mul"}


@pytest.mark.parametrize(
    "nodes",
    [
        "g = MatMul (x, w) p = Sigmoid (g) m = Mul (g, p) y = MatMul (m, w)",
        "g = MatMul (x, w) m = ReduceMax (g, last) d = Sub (g, m) e = Exp (d) s = ReduceSum (e, last) y = Div (e, s)",
        "g = MatMul (x, w) y = LogSoftmax (g)",
        "g = MatMul (x, w) p = Softmax (g) h = Greater (p, half) y = Cast <to = 1> (h)",
        "g = MatMul (x, w) p = Sigmoid (g) a = Add (p, half) y = Log (a)",
        "g = MatMul (x, w) p = Softmax (g) n = IsNaN (p) y = Cast <to = 1> (n)",
    ],
)
def test_shares_of_which_it_does_not_count_how_small_they_are_stay_in_fp16(nodes: str) -> None:
    constants = {"w": noise(8, 8), "last": np.array([-1]), "half": number(0.5)}
    assert _fitted_of(half_case("m", nodes, constants, x=noise(4, 8))).wide == set()


def test_a_logarithm_of_shares_computes_in_fp32_with_them_and_a_note() -> None:
    fitted = _fitted("logarithm_of_shares")
    assert _kept(fitted) == {"Softmax", "Log"}
    assert "fp16 would round its small numbers to 0" in fitted.notes[0]


@pytest.mark.parametrize(
    "nodes",
    [
        "q = MatMul (x, w) t = Transpose (x) s = MatMul (q, t) a = Softmax (s) y = MatMul (a, x)",
        """t = Transpose (x) s = MatMul (x, t) m = ReduceMax (s, last) d = Sub (s, m) e = Exp (d)
          z = ReduceSum (e, last) a = Div (e, z) y = MatMul (a, x)""",
        "t = Transpose (x) p = MatMul (x, t) y = Sigmoid (p)",
        "t = Transpose (x) h = Mul (x, half) p = MatMul (h, t) y = MatMul (p, v)",
        "a = MatMul (x, w) b = Relu (a) y = MatMul (b, w)",
        "a = MatMul (x, w) u = Unsqueeze (x, last) s = Unsqueeze (a, first) y = MatMul (u, s)",
    ],
)
def test_products_of_layers_attention_and_outer_products_stay_in_fp16(nodes: str) -> None:
    constants = {"w": noise(8, 8), "v": noise(8, 3), "last": np.array([-1]), "first": np.array([1])}
    case = half_case("m", nodes, {**constants, "half": number(0.5)}, x=noise(8, 8))
    assert "MatMul" not in _kept(_fitted_of(case))


def test_a_product_of_two_computed_values_computes_in_fp32_with_a_note() -> None:
    fitted = _fitted("gram")
    assert _kept(fitted) == {"MatMul", "Transpose"}, "the product is of x alone, not of x and of x rounded to fp16"
    assert "MatMul 'y' (sums of products may be beyond fp16)" in fitted.notes[0]


@pytest.mark.parametrize(
    "nodes",
    [
        "a = ArgMax <axis = 1> (x) f = Cast <to = 1> (a) y = Concat <axis = 1> (f, x)",
        "a = ArgMax <axis = 1> (x) f = Cast <to = 1> (a) m = MatMul (x, w) y = Add (m, f)",
        "i = Gather (n, zero) f = Cast <to = 1> (i) m = MatMul (x, w) s = Sigmoid (m) y = Add (s, f)",
    ],
)
def test_places_among_few_and_numbers_added_to_what_layers_make_stay_in_fp16(nodes: str) -> None:
    constants = {"w": noise(8, 8), "zero": np.array([0])}
    case = half_case("m", nodes, constants, x=noise(4, 8), n=np.array([5, 7]))
    assert _kept(_fitted_of(case)).isdisjoint({"Cast", "Concat", "Add", "MatMul"})


@pytest.mark.parametrize("handed_on", [
        "r = Reshape (x, all)", "r = Flatten <axis = 0> (x)", "q = Unsqueeze (x, zero) r = Squeeze (q, zero)",
        "r = Expand (x, more)", "r = Transpose (x)", "r = Relu (x)", "r = Clip (x, low, high)", "r = Max (x, low)",
        "r = Neg (x)", "r = Concat <axis = 0> (x, x)", "r = Mul (x, high)", "q = Relu (x) r = Sub (q, high)",
])  # fmt: skip
@pytest.mark.parametrize(
    ("read", "op"),
    [
        ("y = ArgMax <axis = -1> (r)", "ArgMax"),
        ("v, y = TopK <axis = -1> (r, one)", "TopK"),
        ("y = Greater (r, low)", "Greater"),
        ("y = Floor (r)", "Floor"),
    ],
)
def test_what_hands_an_input_on_to_a_place_a_comparison_or_a_rounding_is_in_fp32_with_it(
    handed_on: str, read: str, op: str
) -> None:
    constants = {"all": np.array([-1]), "zero": np.array([0]), "one": np.array([1]), "more": np.array([2, 4, 8])}
    case = half_case("m", f"{handed_on} {read}", {**constants, "low": number(0), "high": number(5)}, x=noise(4, 8))
    fitted = _fitted_of(case)
    assert op in _kept(fitted)
    assert {node.op_type for node in fitted.model.graph.node if fitted.wide.isdisjoint(node.output)} <= {"Cast"}


@pytest.mark.parametrize("read", ["y = ArgMax <axis = -1> (r)", "y = Floor (r)", "y = Greater (r, low)"])
def test_what_layers_make_is_ranked_rounded_and_compared_in_fp16(read: str) -> None:
    case = half_case("m", f"a = MatMul (x, w) r = Relu (a) {read}", {"w": noise(8, 8), "low": number(0)}, x=noise(4, 8))
    assert _kept(_fitted_of(case)).isdisjoint({"MatMul", "Relu", "ArgMax", "Floor", "Greater"})


@pytest.mark.parametrize("before", ["a = MatMul (x, w)", "a = Mul (x, high)"])
@pytest.mark.parametrize("squashed", ["r = Sigmoid (a)", "r = Tanh (a)", "p = Softmax (a) r = Mul (p, high)"])
@pytest.mark.parametrize(
    "read",
    [
        "y = ArgMax <axis = -1> (r)",
        "y = Greater (r, low)",
        "t = Mul (r, low) i = Cast <to = 7> (t) y = Cast <to = 1> (i)",
    ],
)
def test_what_a_sigmoid_makes_of_a_layer_is_in_fp32_until_it_is_ranked_compared_or_rounded(
    before: str, squashed: str, read: str
) -> None:
    constants = {"w": noise(8, 8), "low": number(0.9), "high": number(100)}
    fitted = _fitted_of(half_case("m", f"{before} {squashed} {read}", constants, x=noise(4, 8)))
    in_fp16 = {node.op_type for node in fitted.model.graph.node if fitted.wide.isdisjoint(node.output)}
    assert in_fp16 - {"Cast"} == ({"MatMul"} if "w" in before else set())


def test_gates_and_questions_for_nan_are_no_steps() -> None:
    for nodes in (
        "h = MatMul (x, w) n = Relu (h) a = MatMul (n, w) s = Sigmoid (a) g = Mul (a, s) y = Round (g)",
        "a = MatMul (x, w) s = Softmax (a) e = Equal (s, s) y = Where (e, s, low)",
    ):
        case = half_case("m", nodes, {"w": noise(8, 8), "low": number(0)}, x=noise(4, 8))
        assert _kept(_fitted_of(case)).isdisjoint({"MatMul", "Sigmoid", "Softmax", "Mul", "Round", "Equal"})


@pytest.mark.parametrize(
    "read", ["f = Floor (a) y = Sub (a, f)", "i = Cast <to = 7> (a) f = Cast <to = 1> (i) y = Sub (a, f)"]
)
def test_fractions_of_what_a_layer_makes_are_in_fp32_with_the_layer(read: str) -> None:
    case = half_case("m", f"a = MatMul (x, w) {read}", {"w": noise(8, 8)}, x=noise(4, 8))
    fitted = _fitted_of(case)
    assert {node.op_type for node in fitted.model.graph.node if fitted.wide.isdisjoint(node.output)} <= {"Cast"}


@pytest.mark.parametrize("square", ["q = Mul (s, s)", "q = Pow (s, two)"])
@pytest.mark.parametrize("axes", ["u = Unsqueeze (p, last) v = Unsqueeze (n, last) s = Concat <axis = -1> (u, v)"])
def test_spectra_of_inputs_are_in_fp32(axes: str, square: str) -> None:
    nodes = f"""f = Mul (x, window) p = MatMul (f, w) n = MatMul (f, v2) {axes} {square}
      t = ReduceSum <keepdims = 0> (q, last) e = Add (t, one) y = Log (e)"""
    constants = {"window": noise(64), "w": noise(64, 8), "v2": noise(64, 8, seed=1), "last": np.array([-1])}
    case = half_case("m", nodes, {**constants, "one": number(1), "two": number(2)}, x=noise(4, 64))
    fitted = _fitted_of(case)
    assert {node.op_type for node in fitted.model.graph.node if fitted.wide.isdisjoint(node.output)} == set()


def test_whole_numbers_that_are_given_out_say_so() -> None:
    fitted = _fitted("whole_numbers_joined")
    assert "Concat 'y' (fp16 cannot represent all integers)" in fitted.notes[0]


def test_what_reads_features_computes_in_fp32() -> None:
    """Prices and seconds since 1970, which are beyond fp16: a chosen column, and a linear model of it."""
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 22, "ai.onnx.ml": 3]>
        features (float[n, 3] x) => (float[n, 1] y) <int64[2] columns = {0, 2}> {
            chosen = ai.onnx.ml.ArrayFeatureExtractor (x, columns)
            scaled = ai.onnx.ml.Scaler <offset: floats = [1e5, 1.7e9], scale: floats = [0.1, 1e-7]> (chosen)
            y = ai.onnx.ml.LinearRegressor <coefficients: floats = [0.3, -8e-5], intercepts: floats = [3.0]> (scaled)
        }
    """)
    file = WeightFile()
    fitted = fit_half(Narrow(file)(normalize(model, file=file)), file)
    assert _kept(fitted) >= {"Gather", "Sub", "Mul", "MatMul", "Add"}
    assert {node.output[0] for node in fitted.model.graph.node} == fitted.wide
    assert "features, which may be beyond fp16" in fitted.notes[0]
