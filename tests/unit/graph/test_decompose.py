"""Operators written with core ops: the answers of ONNX's reference evaluator, where ONNX's own cases do not reach."""

import numpy as np
import pytest
from onnx import ModelProto

from support.graphs import answers, model_of, ops_of
from triune.graph.check import Arrays, evaluate
from triune.graph.decompose import Decompose
from triune.graph.normalize import foreign_ops, normalize

RNG = np.random.default_rng(2)


def same(text: str, inputs: Arrays, *, imports: str = "") -> ModelProto:
    """The model in core ops, which computes what `text` does."""
    model = model_of(text, imports=imports)
    normal = normalize(model)
    assert foreign_ops(normal) == []
    for actual, expected in zip(evaluate(normal, inputs), evaluate(model, inputs), strict=True):
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
    return normal


# Elements


@pytest.mark.parametrize("kind", ["float", "double", "float16"])
def test_inverse_hyperbolic_functions_of_numbers_whose_square_overflows(kind: str) -> None:
    dtype = {"float": np.float32, "double": np.float64, "float16": np.float16}[kind]
    largest = float(np.finfo(dtype).max)
    sizes = [1, 1.5, 100, 127, 129, 8191, 8193, largest**0.5, largest / 3, largest, np.inf]
    x = np.array([*sizes, *(-each for each in sizes)], np.float64).astype(dtype)
    for op, given, right in (("Asinh", x, np.arcsinh), ("Acosh", x[: len(sizes)], np.arccosh)):
        text = f"agraph ({kind}[{len(given)}] x) => ({kind}[{len(given)}] y) {{ y = {op} (x) }}"
        (answer,) = evaluate(normalize(model_of(text)), {"x": given})
        assert answer.dtype == dtype
        np.testing.assert_allclose(answer, right(given.astype(np.float64)), rtol=2e-3 if kind == "float16" else 1e-6)


@pytest.mark.parametrize("kind", ["float", "float16"])
@pytest.mark.parametrize("alpha", [-2.0, -0.5, 0.5, 2.0])
def test_celu_of_a_negative_alpha_has_no_bend_above_zero(alpha: float, kind: str) -> None:
    x = np.array([-5, -1, -0.3, -0.0, 0.3, 0.64, 2, 8], np.float32 if kind == "float" else np.float16)
    model = model_of(f"agraph ({kind}[8] x) => ({kind}[8] y) {{ y = Celu <alpha = {alpha}> (x) }}")
    wide = x.astype(np.float64)
    expected = np.maximum(0, wide) + np.minimum(0, alpha * (np.exp(wide / alpha) - 1))
    for each in (model, normalize(model)):
        (answer,) = evaluate(each, {"x": x})
        assert answer.dtype == x.dtype
        np.testing.assert_allclose(answer, expected.astype(x.dtype), rtol=1e-6 if kind == "float" else 5e-3, atol=1e-6)


def test_the_largest_of_a_vector_has_a_type_that_inference_knows() -> None:
    text = "agraph (float[5] x, float[5] w) => (float[5] y) { h = Hardmax (x)  y = Mul (h, w) }"
    normal = same(text, {"x": np.array([1, 3, 2, 3, 0], np.float32), "w": np.arange(1, 6, dtype=np.float32)})
    told = {value.name for value in normal.graph.value_info} | {value.name for value in normal.graph.output}
    assert told >= {output for node in normal.graph.node for output in node.output}


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
def test_bits_of_whole_numbers(op: str, kind: str) -> None:
    dtype, narrow = np.dtype(kind), np.iinfo(np.int32)
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    if dtype.itemsize == 8:
        low, high = max(low, narrow.min), min(high, narrow.max)
    x = np.concatenate([RNG.integers(low, high, 60, dtype, endpoint=True), np.array([low, high, 0, 1], dtype)])
    same(
        f"agraph ({kind}[64] x, {kind}[64] y) => ({kind}[64] z) {{ z = Bitwise{op} (x, y) }}",
        {"x": x, "y": RNG.permutation(x)},
    )


def test_bits_beyond_int32_stay() -> None:
    text = "agraph (int64[2] x) => (int64[2] z) <int64 y = {4294967296}> { z = BitwiseAnd (x, y) }"
    assert ops_of(normalize(model_of(text))) == ["BitwiseAnd"]


# Sets

COUNTS = "int64[?] indices, int64[?] inverse, int64[?] counts"


@pytest.mark.parametrize("is_sorted", [0, 1])
@pytest.mark.parametrize("values", [[2, 1, 1, 3, 4, 3], [7], [np.inf, -0.0, 0.0, -np.inf]])
def test_unique_values(is_sorted: int, values: list[float]) -> None:
    text = f"""agraph (float[N] x) => (float[?] y, {COUNTS}) {{
      y, indices, inverse, counts = Unique <sorted={is_sorted}> (x) }}"""
    same(text, {"x": np.array(values, np.float32)})


def test_unique_rows_of_any_axis() -> None:
    rows = RNG.integers(0, 2, (3, 9, 2))
    for axis in (0, 1, 2, -1):
        text = f"""agraph (int64[3,9,2] x) => (int64[?,?,?] y, {COUNTS}) {{
          y, indices, inverse, counts = Unique <axis={axis}> (x) }}"""
        same(text, {"x": rows})


def test_all_nan_are_one_value_the_largest() -> None:
    text = f"agraph (float[N] x) => (float[?] y, {COUNTS}) {{ y, indices, inverse, counts = Unique (x) }}"
    y, indices, inverse, counts = evaluate(normalize(model_of(text)), {"x": np.float32([np.nan, 2, np.nan, 1])})
    np.testing.assert_array_equal(y, [1, 2, np.nan])
    assert [each.tolist() for each in (indices, inverse, counts)] == [[3, 1, 0], [2, 1, 2, 0], [1, 1, 2]]


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("skips", [0, 1, 5])
def test_runs_of_tokens_are_counted(mode: str, skips: int) -> None:
    text = f"""agraph (int64[2,7] x) => (float[2,5] y) {{
      y = TfIdfVectorizer <mode="{mode}", min_gram_length=1, max_gram_length=3, max_skip_count={skips},
        ngram_counts=[0,2,6], ngram_indexes=[0,3,1,2,4], pool_int64s=[1,2, 1,2,2,1, 1,2,1],
        weights=[0.5,2.0,3.0,4.0,5.0]> (x) }}"""
    same(text, {"x": np.array([[1, 2, 1, 2, 1, 1, 3], [2, 2, 1, 3, 2, 1, 1]])})


# Between pixels


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "output_half_pixel"])
def test_regions_inside_across_and_outside_the_image(mode: str, coordinates: str) -> None:
    text = f"""agraph (float[2,3,5,7] x, float[R,4] boxes, int64[R] batch) => (float[R,3,2,3] y) {{
      y = RoiAlign <mode="{mode}", coordinate_transformation_mode="{coordinates}", output_height=2, output_width=3,
        sampling_ratio=3, spatial_scale=0.5> (x, boxes, batch) }}"""
    boxes = [[0, 0, 8, 6], [2, 1, 3, 9], [-9, -7, 4, 4], [5, 5, 5, 5], [8, 2, 30, 20], [40, 40, 50, 50]]
    inputs = {"x": RNG.standard_normal((2, 3, 5, 7)), "boxes": np.array(boxes), "batch": np.arange(6) % 2}
    same(text, {name: a if name == "batch" else a.astype(np.float32) for name, a in inputs.items()})


def test_regions_whose_number_of_samples_depends_on_them_stay() -> None:
    text = """agraph (float[2,3,5,7] x, float[R,4] boxes, int64[R] batch) => (float[R,3,1,1] y) {
      y = RoiAlign (x, boxes, batch) }"""
    assert ops_of(normalize(model_of(text))) == ["RoiAlign"]


def test_kernels_bent_with_all_that_convolutions_have() -> None:
    text = """agraph (float[N,4,6,5] x, float[6,2,2,3] w, float[N,24,2,2] offset, float[6] b, float[N,12,2,2] mask)
      => (float[N,6,2,2] y) {
      y = DeformConv <group=2, offset_group=2, strides=[3,2], dilations=[2,1], pads=[1,0,0,1], kernel_shape=[2,3]>
        (x, w, offset, b, mask) }"""
    shapes = {"x": (2, 4, 6, 5), "w": (6, 2, 2, 3), "offset": (2, 24, 2, 2), "b": (6,), "mask": (2, 12, 2, 2)}
    same(text, {name: RNG.standard_normal(shape).astype(np.float32) * 1.5 for name, shape in shapes.items()})


def test_bent_kernels_on_an_image_of_one_column() -> None:
    text = """agraph (float[1,1,4,1] x, float[1,1,2,1] w, float[1,4,3,1] offset) => (float[1,1,3,1] y) {
      y = DeformConv <kernel_shape=[2,1]> (x, w, offset) }"""
    offset = np.zeros((1, 4, 3, 1), np.float32)
    offset[0, 0, 1] = 0.5
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 4, 1)
    (y,) = evaluate(normalize(model_of(text)), {"x": x, "w": np.ones((1, 1, 2, 1), np.float32), "offset": offset})
    np.testing.assert_allclose(y.reshape(-1), [1, 3.5, 5], atol=1e-6)


# Spectra


@pytest.mark.parametrize("length", [None, 7, 8, 12])
def test_real_signals_of_half_a_spectrum(length: int | None) -> None:
    signal = RNG.standard_normal((2, length or 10)).astype(np.float32)
    half = np.fft.rfft(signal)
    n = f"int64 n = {{{length}}}," if length else ""
    text = f"""agraph (float[2,{half.shape[1]},2] x) => (float[2,?,1] y) <{n} int64 axis = {{1}}> {{
      y = DFT <inverse=1, onesided=1> (x, {"n" if length else ""}, axis) }}""".replace("(x, ,", '(x, "",')
    x = np.stack([half.real, half.imag], -1).astype(np.float32)
    (y,) = evaluate(normalize(model_of(text)), {"x": x})
    np.testing.assert_allclose(y[..., 0], signal, atol=1e-5)


# Free sizes


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ('(float[N,10,2] x) => (float[N,10,2] y) <int64 a={1}> { y = DFT (x, "", a) }', {"x": (3, 10, 2)}),
        ('(float[N,6,1] x) => (float[N,4,2] y) <int64 a={1}> { y = DFT <onesided=1> (x, "", a) }', {"x": (3, 6, 1)}),
        (
            "(float[N,40,1] x, float[8] w) => (float[N,9,5,2] y) <int64 s={4}> { y = STFT (x, s, w) }",
            {"x": (3, 40, 1), "w": (8,)},
        ),
        (
            "(float[N,L,1] x, float[8] w) => (float[N,F,5,2] y) <int64 s={5}> { y = STFT (x, s, w) }",
            {"x": (3, 41, 1), "w": (8,)},
        ),
        (
            '(float[N,L,1] x) => (float[N,F,7,2] y) <int64 s={3}, int64 n={7}> { y = STFT <onesided=0> (x, s, "", n) }',
            {"x": (2, 30, 1)},
        ),
        ('(float[N,3,3] x) => (float[N,3] y) { y = Einsum <equation="bii->bi"> (x) }', {"x": (2, 3, 3)}),
        (
            "(float[N,8,9] x) => (float[N,2,4,4] y) <int64[2] s={4,4}, int64[2] k={2,2}> { y = Col2Im (x, s, k) }",
            {"x": (3, 8, 9)},
        ),
        (
            """(float[N,2,6,3] c, float[N,2,2,3] u, int64[N] i) => (float[N,2,6,3] y) {
            y = TensorScatter <mode="circular"> (c, u, i) }""",
            {"c": (2, 2, 6, 3), "u": (2, 2, 2, 3), "i": (2,)},
        ),
        (
            "(float[N,6,3] c, float[N,2,3] u) => (float[N,6,3] y) { y = TensorScatter (c, u) }",
            {"c": (2, 6, 3), "u": (2, 2, 3)},
        ),
    ],
)
def test_a_free_batch_needs_no_size(text: str, shapes: dict[str, tuple[int, ...]]) -> None:
    inputs = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    if "i" in inputs:
        inputs["i"] = np.array([3, 5])
    same(f"agraph {text}", inputs)


@pytest.mark.parametrize("batch", ["3", "N"])
@pytest.mark.parametrize("op", ["LpPool", "MaxPool"])
def test_a_window_beyond_the_image_is_known_whatever_the_batch_is(op: str, batch: str) -> None:
    """The window is larger than the padded image by less than a stride."""
    attributes = "kernel_shape=[4,4], strides=[2,2], pads=[0,0,0,0]"
    text = f"agraph (float[{batch},2,3,3] x) => (float[{batch},2,1,1] y) {{ y = {op} <{attributes}> (x) }}"
    x = RNG.standard_normal((3, 2, 3, 3)).astype(np.float32)
    (fixed,) = evaluate(normalize(model_of(text.replace("N", "3"))), {"x": x})
    (y,) = evaluate(normalize(model_of(text)), {"x": x})
    np.testing.assert_allclose(y, fixed, rtol=1e-6)


# Sequences


@pytest.mark.parametrize(
    "body",
    [
        "s = SplitToSequence <axis=1> (x)  y = ConcatFromSequence <axis=0> (s)",
        "s = SplitToSequence <axis=1, keepdims=0> (x)  y = ConcatFromSequence <axis=1, new_axis=1> (s)",
        "<int64 two = {2}> { s = SplitToSequence <axis=1> (x, two)  y = SequenceAt (s, one) }",
        "<int64[2] parts = {2,1}> { s = SplitToSequence <axis=1> (x, parts)  y = SequenceAt (s, minus) }",
        "e = SequenceEmpty ()  s = SequenceInsert (e, x)  t = SequenceInsert (s, x)"
        "  y = ConcatFromSequence <axis=0> (t)",
        "n = Neg (x)  s = SequenceConstruct (x, n, x)  t = SequenceErase (s, minus)  y = SequenceAt (t, minus)",
        "n = Neg (x)  s = SequenceConstruct (x, x)  t = SequenceInsert (s, n, one)  i = Identity (t)"
        "  y = SequenceAt (i, one)",
        "s = SequenceConstruct (x, x)  l = SequenceLength (s)  f = Cast <to=1> (l)  y = Mul (x, f)",
    ],
)
def test_sequences_are_their_tensors(body: str) -> None:
    constants = "int64 one = {1}, int64 minus = {-1}"
    if body.startswith("<"):
        more, _, body = body[1:].partition("> { ")
        constants, body = f"{constants}, {more}", body.removesuffix(" }")
    text = f"agraph (float[2,3] x) => (float[?,?] y) <{constants}> {{ {body} }}"
    normal = same(text, {"x": RNG.standard_normal((2, 3)).astype(np.float32)})
    assert not any("Sequence" in op for op in ops_of(normal))


def test_sequences_read_at_places_that_are_not_known_stay() -> None:
    text = """agraph (float[2,3] x, int64 at, int64 one) => (float[2] y, float[2] z) {
      s = SplitToSequence <axis=1, keepdims=0> (x)  y = SequenceAt (s, at)  k = Constant <value_int=1> ()
      z = SequenceAt (s, k) }"""
    assert foreign_ops(normalize(model_of(text))) == ["SplitToSequence 's'", "SequenceAt 'y'"]


# What has one value


def test_what_is_made_of_no_elements_is_known() -> None:
    text = """agraph (float[2,0,4] x, float[2,1,4] z) => (float[2,1,4] y) {
      a = Constant <value_ints=[1]> ()  s = ReduceSum (x, a)  m = ReduceProd (x, a)  t = Add (s, m)  y = Add (t, z) }"""
    normal = normalize(model_of(text))
    assert ops_of(normal) == ["Add"]
    (y,) = evaluate(normal, {"x": np.zeros((2, 0, 4), np.float32), "z": np.zeros((2, 1, 4), np.float32)})
    np.testing.assert_array_equal(y, np.ones((2, 1, 4)))


def test_dropout_in_training_drops_and_scales() -> None:
    text = """agraph (float[100,100] x, float ratio, bool training) => (float[100,100] y, bool[100,100] kept) {
      y, kept = Dropout (x, ratio, training) }"""
    normal = normalize(model_of(text))
    assert foreign_ops(normal) == []
    x = np.ones((100, 100), np.float32)
    y, kept = evaluate(normal, {"x": x, "ratio": np.float32(0.75), "training": np.bool_(True)})
    assert 0.2 < kept.mean() < 0.3
    np.testing.assert_array_equal(y, np.where(kept, 4, 0))
    y, kept = evaluate(normal, {"x": x, "ratio": np.float32(0.75), "training": np.bool_(False)})
    assert kept.all()
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("attributes", ["is_test = 0, ratio = 0.75", "is_test = 0", "ratio = 0.75"])
def test_dropout_of_old_sets_drops_where_it_says_so(attributes: str) -> None:
    text = f"agraph (float[100,100] x) => (float[100,100] y) {{ y = Dropout <{attributes}> (x) }}"
    normal = normalize(model_of(text, opset=6))
    assert foreign_ops(normal) == []
    (y,) = evaluate(normal, {"x": np.ones((100, 100), np.float32)})
    ratio = 0 if "is_test" not in attributes else 0.75 if "ratio" in attributes else 0.5
    assert abs((y == 0).mean() - ratio) < 0.05
    np.testing.assert_array_equal(y[y != 0], np.float32(1 / (1 - ratio)))


def test_columns_and_thresholds_of_classical_models() -> None:
    imports = ', "ai.onnx.ml" : 5'
    text = """agraph (float[3,4] x, int64[1,2] columns) => (float[3,2] y) {
      f = ai.onnx.ml.ArrayFeatureExtractor (x, columns)  y = ai.onnx.ml.Binarizer <threshold=0.5> (f) }"""
    inputs = {"x": RNG.standard_normal((3, 4)).astype(np.float32), "columns": np.array([[3, 1]])}
    same(text, inputs, imports=imports)


# Sums of exponentials


@pytest.mark.parametrize(
    ("axes", "attributes", "dims"),
    [
        ("<int64[1] a = {-1}>", "<keepdims = 0> (x, a)", "2"),
        ("<int64[1] a = {0}>", "(x, a)", "1,3"),
        ("", "(x)", "1,1"),
        ("", "<noop_with_empty_axes = 1> (x)", "2,3"),
    ],
)
def test_sums_of_exponentials_of_large_numbers(axes: str, attributes: str, dims: str) -> None:
    normal = normalize(
        model_of(f"agraph (float[2,3] x) => (float[{dims}] y) {axes} {{ y = ReduceLogSumExp {attributes} }}")
    )
    assert foreign_ops(normal) == []
    x = np.float32([[1000, 999, -5], [-np.inf, -1000, -1000]])
    with np.errstate(divide="ignore"):
        places = {"2": 1, "1,3": 0, "1,1": (0, 1), "2,3": ()}[dims]
        expected = np.logaddexp.reduce(x.astype(np.float64), axis=places, keepdims=dims != "2")
    np.testing.assert_allclose(evaluate(normal, {"x": x})[0], expected, rtol=1e-6)


def test_names_of_the_model_are_not_taken() -> None:
    taken = Decompose()(model_of("agraph (float[2] x) => (float[2] y) { y = Acosh (x) }")).graph.node[0].output[0]
    same(
        f'agraph (float[2] x) => (float[2] z) {{ "{taken}" = Neg (x)  y = Acosh (x)  z = Add ("{taken}", y) }}',
        {"x": np.array([1, 3], np.float32)},
    )


# Grids


@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize("size", [[1, 2, 3, 4], [1, 1, 1, 1], [2, 1, 3, 1], [1, 1, 1, 2, 3], [2, 1, 2, 1, 4]])
def test_grids_of_a_batch_of_one_and_of_single_pixels(size: list[int], align_corners: int) -> None:
    axes, rank = len(size) - 2, ",".join("?" * len(size))
    text = f"""agraph (float[{size[0]},{axes},{axes + 1}] theta, int64[{len(size)}] size) => (float[{rank}] y) {{
      y = AffineGrid <align_corners={align_corners}> (theta, size) }}"""
    model = model_of(text, opset=20)
    given = {"theta": RNG.random((size[0], axes, axes + 1), np.float32), "size": np.array(size)}
    normal = normalize(model)
    assert foreign_ops(normal) == []
    (expected,) = answers(model, given)
    (actual,) = evaluate(normal, given)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


# Whole numbers


@pytest.mark.parametrize("element", ["int32", "int64"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_logarithms_of_sums_of_whole_numbers_are_rounded_towards_zero(element: str, keepdims: int) -> None:
    # ONNX Runtime 1.32's answers; the body that ONNX gives takes Log of whole numbers, which is not defined.
    x = np.array([[1, 2, 3, 4], [7, 7, 7, 1], [300, 2, 1, 0]], element)
    for op, expected in (("ReduceLogSum", [2, 3, 5]), ("ReduceLogSumExp", [4, 8, 300])):
        shape = "3,1" if keepdims else "3"
        text = f"""agraph ({element}[3,4] x) => ({element}[{shape}] y) {{
          axes = Constant <value_ints=[1]> ()
          y = {op} <keepdims={keepdims}> (x, axes) }}"""
        normal = normalize(model_of(text))
        assert foreign_ops(normal) == []
        (y,) = evaluate(normal, {"x": x})
        assert (y.dtype, y.reshape(-1).tolist()) == (np.dtype(element), expected)


def test_a_negative_shift_is_one_by_more_than_the_width() -> None:
    text = """agraph (int32[3] x, int32[3] n) => (int32[3] left, int32[3] right) {
      left = BitShift <direction="LEFT"> (x, n)
      right = BitShift <direction="RIGHT"> (x, n) }"""
    inputs = {"x": np.array([-8, 4, -1], np.int32), "n": np.array([-1, -32, -64], np.int32)}
    left, right = evaluate(normalize(model_of(text)), inputs)
    assert (left.tolist(), right.tolist()) == ([0, 0, 0], [-1, 0, -1])


def test_uint32_is_shifted_as_bits() -> None:
    text = """agraph (uint32[n] x, uint32[n] s) => (uint32[n] left, uint32[n] right) {
      left = BitShift <direction="LEFT"> (x, s)
      right = BitShift <direction="RIGHT"> (x, s) }"""
    values = np.array([0, 1, 2, 7, 2**31 - 1, 2**31, 2**31 + 5, 2**32 - 1, 2**32 - 2], np.uint32)
    shifts = np.array([0, 1, 2, 15, 16, 30, 31], np.uint32)
    x, n = (each.ravel() for each in np.meshgrid(values, shifts))
    left, right = evaluate(normalize(model_of(text)), {"x": x, "s": n})
    np.testing.assert_array_equal(left, x << n)
    np.testing.assert_array_equal(right, x >> n)
    left, right = evaluate(normalize(model_of(text)), {"x": values, "s": np.full_like(values, 32)})
    assert not left.any()
    assert not right.any()


@pytest.mark.parametrize("opset", [9, 13, 21])
@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0])
def test_a_norm_of_numbers_far_from_zero_has_their_variance(opset: int, spread: float) -> None:
    text = "agraph (float[1,2,4,4] x) => (float[1,2,4,4] y) { y = MeanVarianceNormalization (x) }"
    x = (3 + spread * np.random.default_rng(0).standard_normal((1, 2, 4, 4))).astype(np.float32)
    centred = x - x.mean((0, 2, 3), keepdims=True, dtype=np.float64)
    right = centred / (np.sqrt((centred**2).mean((0, 2, 3), keepdims=True)) + 1e-9)
    (y,) = evaluate(normalize(model_of(text, opset=opset)), {"x": x})
    np.testing.assert_allclose(y, right, atol=1e-3)


@pytest.mark.parametrize("dims", ["2,6,4,5", "N,6,H,5", "2,6"])
@pytest.mark.parametrize(("kind", "tolerance"), [("float", 1e-2), ("float16", 4e-3), ("double", 1e-9)])
def test_a_norm_of_groups_far_from_zero_has_their_variance(kind: str, tolerance: float, dims: str) -> None:
    """A value of fp16 is normalized in fp32, and scaled in fp16."""
    dtype = {"float": np.float32, "double": np.float64, "float16": np.float16}[kind]
    stash = 11 if kind == "double" else 1
    text = f"""agraph ({kind}[{dims}] x, {kind}[6] scale, {kind}[6] bias) => ({kind}[{dims}] y) {{
        y = GroupNormalization <num_groups = 2, epsilon = 1e-6, stash_type = {stash}> (x, scale, bias) }}"""
    shape = (2, 6) if dims == "2,6" else (2, 6, 4, 5)
    x = (100 + RNG.standard_normal(shape) * (1 if kind == "float16" else 0.01)).astype(dtype)
    scale, bias = RNG.standard_normal(6).astype(dtype), RNG.standard_normal(6).astype(dtype)
    wide = x.astype(np.float64).reshape(2, 2, -1)
    normal = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-6)
    expected = normal.reshape(2, 6, -1) * scale[:, None].astype(np.float64) + bias[:, None]
    (answer,) = evaluate(normalize(model_of(text)), {"x": x, "scale": scale, "bias": bias})
    assert answer.dtype == dtype
    np.testing.assert_allclose(answer, expected.reshape(shape), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16"])
@pytest.mark.parametrize(("equation", "shape"), [("ij,jk->ik", "[3,3]"), ("ij,ij->j", "[3]"), ("ii,ik->ik", "[3,3]")])
def test_einsum_of_small_integers_wraps_around(equation: str, shape: str, kind: str) -> None:
    x = RNG.integers(-200, 200, (3, 3)).astype(kind)
    same(f'agraph ({kind}[3,3] x) => ({kind}{shape} y) {{ y = Einsum <equation = "{equation}"> (x, x) }}', {"x": x})
