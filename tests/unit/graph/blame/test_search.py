"""What is found in a graph whose terms cancel, and what the simulation rounds."""

import time
from collections.abc import Iterator

import numpy as np
import pytest

from support.graphs import model_of
from triune.graph.audit import InputSet
from triune.graph.blame.examine import Wrong, examine
from triune.graph.blame.gates import Untaken
from triune.graph.blame.search import Sample, leading_to, search
from triune.graph.blame.simulation import Simulation
from triune.graph.conversion.options import ConversionOptions, Precision
from triune.graph.conversion.prepare import prepare, silent
from triune.graph.weight_files import WeightFile

TEXT = """g (float[4] x) => (float[4] y, float[4] z) <float one = {1}, float k = {3}> {
    c = Cos (x) d = Sub (one, c) y = Mul (d, k) z = Relu (x) }"""
OPTIONS = ConversionOptions(precision=Precision.FP16)
X = {"x": np.array([0.01, 0.012, 0.008, 0.009], np.float32)}


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with WeightFile() as file:
        prepared = prepare(model_of(TEXT, opset=18), OPTIONS, None, silent, file)
        yield Simulation(prepared.model, [], file)


def test_the_simulation_rounds_each_result(simulation: Simulation) -> None:
    exact = simulation.reference(X)
    halved = simulation.halved([]).run(X)
    assert halved["d"].max() == 0
    np.testing.assert_allclose(exact["y"], 3 * (1 - np.cos(X["x"].astype(np.float64))), rtol=0.01)
    np.testing.assert_allclose(simulation.halved(["c", "d", "y"]).run(X)["y"], exact["y"], rtol=0.01)


def test_the_simulation_computes_what_has_results_that_nothing_reads() -> None:
    text = """g (float[8] x, int64[1] k) => (float[n] y) {
        a = Abs (x) values, places = TopK <axis = 0> (a, k) p = Cast <to = 1> (places) y = Sqrt (p) }"""
    model = model_of(text, opset=18)
    x = {"x": np.array([3, 1, 4, -1, 5, -9, 2, 6], np.float32), "k": np.array([3])}
    with WeightFile() as file:
        simulation = Simulation(prepare(model, OPTIONS, None, silent, file).model, [], file)
        found = simulation.halved([]).run(x)
    np.testing.assert_allclose(found["y"], np.sqrt([5, 7, 4]), rtol=1e-3)


def test_another_runtime_may_differ_where_fp32_cancels(simulation: Simulation) -> None:
    uncertain = simulation.uncertainty(X)
    # 1 - cos(x) has the rounding error of 1; x itself has none.
    assert 1e-8 < uncertain["y"].max() < 1e-5
    assert uncertain["z"].max() == 0


def test_the_search_finds_what_cancels_and_nothing_else(simulation: Simulation) -> None:
    sample = Sample("near 0", X, simulation.reference(X), simulation.uncertainty(X))
    found = search(simulation, [sample], [], 0.05, time.monotonic() + 60)
    assert {"c", "d"} <= set(found)
    assert "z" not in found
    assert list(leading_to(simulation, "d", is_whole=False)) == ["d", "c"]


@pytest.mark.parametrize("has_product", [False, True])
def test_a_large_graph_computes_in_fp32_whole_only_without_matrix_products(has_product: bool) -> None:
    """The difference of two moving averages of a series that hardly moves: each step rounds in fp16."""
    averages = [
        f"{name}{step}k = Mul ({name}{step}, keep_{name}) {name}{step}x = Mul (x, add_{name}) "
        f"{name}{step + 1} = Add ({name}{step}k, {name}{step}x)"
        for name in "ab"
        for step in range(12)
    ]
    last = "r = MatMul (x, w) z = Relu (r)" if has_product else "z = Relu (x)"
    text = f"""g (float[4] x, float[4] a0, float[4] b0) => (float[4] y, float[m] z) <
      float keep_a = {{0.9}}, float add_a = {{0.1}}, float keep_b = {{0.8}}, float add_b = {{0.2}},
      float[4, 1] w = {{1, 2, 3, 4}}> {{
        {" ".join(averages)} y = Sub (a12, b12) {last} }}"""
    moving = np.array([280, 280.1, 279.9, 280.2], np.float32)
    inputs = {"x": moving, "a0": moving - 1, "b0": moving - 1}
    wrong = Wrong(InputSet("nearly equal numbers", inputs), {"y": np.zeros(4), "z": moving})
    found = examine(model_of(text, opset=18), OPTIONS, [wrong], [], 0.05, 60)
    assert ("y" in found.wide and "a1" in found.wide) is not has_product


def test_what_is_examined_is_named_in_notes() -> None:
    wrong = Wrong(InputSet("numbers near 0.01", X, is_narrow=True), {"y": np.zeros(4), "z": X["x"]})
    found = examine(model_of(TEXT, opset=18), OPTIONS, [wrong], [Untaken("y", "Where", side=True)], 0.05, 60)
    assert {"c", "d"} <= set(found.wide)
    assert found.doubts == ("numbers near 0.01",)
    first, second = found.notes
    assert first.startswith("fp16 is not exact enough for numbers near 0.01")
    # There is no such Where, so its side is told of alone.
    assert second == "no generated input takes the first side of Where 'y', so that was not compared"


def test_what_only_the_runtime_rounds_computes_in_fp32_from_the_last_layers_on() -> None:
    """Apple's interpreter adds the products of a MatMul of fp16 in fp16, which the simulation does not."""
    text = """g (float[4,2] x) => (float[4,4] y) <float[2,2] w = {1, 0, 0, 1}, float k = {2}> {
        a = MatMul (x, w) t = Transpose <perm = [1, 0]> (a) s = MatMul (a, t) m = Mul (s, k) y = Softmax (m) }"""
    wrong = Wrong(InputSet("ones", {"x": np.ones((4, 2), np.float32)}), {"y": np.eye(4, dtype=np.float32)})
    found = examine(model_of(text, opset=18), OPTIONS, [wrong], [], 0.05, 60)
    assert {"y", "s"} <= set(found.wide)
    assert "a" not in found.wide
    assert found.notes[0].startswith("fp16 is not exact enough for ones: Softmax 'y'")
    known = ConversionOptions(precision=Precision.FP16, wide=frozenset(found.wide))
    assert not examine(model_of(text, opset=18), known, [wrong], [], 0.05, 60).wide


def test_labels_lead_to_the_scores_that_decide_them() -> None:
    """Of naive Bayes: no float leads to the label but those that ArgMax compares."""
    text = """g (float[2,3] x) => (int64[2] y, float[2,3] z)
        <float[3,3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1}, int64[3] c = {7, 2, 9}> {
        a = Abs (x) s = MatMul (a, w) i = ArgMax <axis = 1, keepdims = 0> (s) l = Gather (c, i)
        f = Cast <to = 1> (l) y = Cast <to = 7> (f) z = Neg (a) }"""
    x = {"x": np.array([[1, 2, 3], [3, 2, 1]], np.float32)}
    wrong = Wrong(InputSet("ends", x), {"y": np.array([9, 2]), "z": -x["x"]})
    # The rules have the label itself in fp32 already.
    known = ConversionOptions(precision=Precision.FP16, wide=frozenset({"f"}))
    assert examine(model_of(text, opset=18), known, [wrong], [], 0.05, 60).wide == ("s",)


@pytest.mark.parametrize(
    "nodes",
    [
        # What cancels leads to the output through a second result, of a Split and of a Loop with a counter.
        """c = Cos (x) e = Sub (one, c) d = Mul (e, k) s, t = Split <axis = 0, num_outputs = 2> (d) y = Mul (t, k)""",
        """c = Cos (x) d = Sub (one, c) last, t = Loop <body = b (int64 i, bool going, int32 n, float[4] h) => (
            bool again, int32 m, float[4] g) <int32 step = {1}, float[4] h0 = {0, 0, 0, 0}> {
                again = Identity (going) m = Add (n, step) g = Add (h, d) }> (num, yes, zero, nought) y = Mul (t, k)""",
    ],
)
def test_a_second_result_leads_to_what_cancels(nodes: str) -> None:
    text = f"""g (float[4] x) => (float[M] y) <float one = {{1}}, float k = {{3}}, int64 num = {{3}}, bool yes = {{1}},
      int32 zero = {{0}}, float[4] nought = {{0, 0, 0, 0}}> {{ {nodes} }}"""
    wrong = Wrong(InputSet("numbers near 0.01", X, is_narrow=True), {"y": np.zeros(2 if "Split" in nodes else 4)})
    found = examine(model_of(text, opset=18), OPTIONS, [wrong], [], 0.05, 60)
    assert {"c", "d" if "Loop" in nodes else "e"} <= set(found.wide)
    assert len(found.wide) < 5


@pytest.mark.parametrize(
    "nodes",
    [
        "p = MatMul (d, floats) y = Identity (p)",
        # ONNX Runtime lacks kernels of the newest DequantizeLinear, which packed weights need.
        "w = DequantizeLinear (levels, step) p = MatMul (d, w) y = Identity (p)",
        """q = QuantizeLinear (d, fine, middle) r = DequantizeLinear (q, fine, middle) p = MatMul (r, floats)
        y = Identity (p)""",
        # The model computes in fp32 but for what it hands out.
        "p = MatMul (d, floats) h = Cast <to = 10> (p) y = Cast <to = 1> (h)",
    ],
)
def test_quantized_models_and_those_with_fp16_within_are_searched(nodes: str) -> None:
    text = f"""g (float[1, 4] x) => (float[1, 1] y) <float one = {{1}}, float step = {{0.01}},
      float fine = {{0.000001}}, int8 middle = {{0}}, int8[4, 1] levels = {{90, 80, 70, 60}},
      float[4, 1] floats = {{0.9, 0.8, 0.7, 0.6}}> {{
        c = Cos (x) d = Sub (one, c) {nodes} }}"""
    arrays = {"x": X["x"].reshape(1, 4)}
    wrong = Wrong(InputSet("numbers near 0.01", arrays, is_narrow=True), {"y": np.zeros((1, 1))})
    found = examine(model_of(text, opset=18), OPTIONS, [wrong], [], 0.05, 60)
    assert {"c", "d"} <= set(found.wide)
    assert "why could not be found" not in " ".join(found.notes)


def test_both_values_that_cancel_compute_in_fp32() -> None:
    text = """g (float[4] x) => (float[3] y) <int64[1] zero = {0}, int64[1] one = {1}, int64[1] three = {3},
      int64[1] four = {4}, float k = {100}> {
        a = Slice (x, one, four) b = Slice (x, zero, three) e = Log (a) f = Log (b) d = Sub (e, f) y = Mul (d, k) }"""
    # log(b) alone happens to be right in fp16: it is 4.
    arrays = {"x": np.array([54.59375, 54.59375, 54.59375, 55.2], np.float32)}
    exact = 100 * np.diff(np.log(arrays["x"]))
    wrong = Wrong(InputSet("lines", arrays, is_narrow=True), {"y": np.zeros_like(exact)})
    found = examine(model_of(text, opset=18), OPTIONS, [wrong], [], 0.05, 60)
    assert {"d", "e", "f"} <= set(found.wide)


def test_a_deep_network_beyond_fp16_computes_in_fp32_from_where_it_leaves() -> None:
    """As deep as a network of pictures may be whose sums grow: more layers leave fp16 than the search has rounds."""
    calm = " ".join(f"a{i + 1} = MatMul (a{i}, same)" for i in range(36))
    growing = " ".join(f"b{i + 1} = MatMul (b{i}, twice)" for i in range(20))
    text = f"""g (float[1, 1] x) => (float[1, 1] y) <
      float step = {{0.1}}, int8[1, 1] one = {{10}}, int8[1, 1] two = {{20}}> {{
        same = DequantizeLinear (one, step) twice = DequantizeLinear (two, step)
        a0 = MatMul (x, same) {calm} b0 = MatMul (a36, same) {growing} y = MatMul (b20, same) }}"""
    arrays = {"x": np.array([[3000]], np.float32)}
    beyond = {"y", *(f"b{i}" for i in range(5, 21))}
    for kind, expected in (("yours", beyond), ("noise", set[str]())):
        wrong = Wrong(InputSet(kind, arrays), {"y": np.array([[np.inf]])})
        found = examine(model_of(text, opset=21), OPTIONS, [wrong], [], 0.05, 60)
        assert set(found.wide) == expected, kind
