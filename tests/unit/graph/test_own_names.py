"""Free sizes of several inputs that have one name: no runtime refuses inputs in which they differ."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto

from support.graphs import model_of
from triune.core.units import Unit
from triune.graph.ane import Report
from triune.graph.conversion.options import ConversionOptions
from triune.graph.conversion.prepare import prepare, silent
from triune.graph.load import load
from triune.graph.optimizing.level import Level
from triune.graph.optimizing.run import optimize
from triune.graph.own_names import give_own_names, join_combined, restore_names
from triune.graph.weight_files import WeightFile, with_data

RESHAPED = """g (float[b,n,4] x, float[b,n,4] other) => (float[p,q,r] y)
<float[4,4] w = {1, 2, 0, 1, 3, 0, 1, 1, 0, 1, 2, 2, 1, 1, 1, 0}, float[4] bias = {1, 2, 3, 4}> {
product = MatMul (x, w) h = Add (product, bias)
rows = Shape <start = 0, end = 1> (x) steps = Shape <start = 1, end = 2> (other)
rest = Constant <value_ints = [-1]> () target = Concat <axis = 0> (rows, steps, rest)
cut = Reshape (h, target) y = Neg (cut) }"""
"""A linear layer, whose result is reshaped to the number of steps that another input has."""


def _answer(model: ModelProto, **given: Any) -> Any:
    session: Any = ort.InferenceSession(with_data(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, given)[0]


def _given(steps: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((2, 6, 4)).astype(np.float32),
        "other": rng.standard_normal((1, steps, 4)).astype(np.float32),
    }


@pytest.mark.parametrize("steps", [3, 6, 12])
@pytest.mark.parametrize(("level", "unit"), [(Level.O2, Unit.CPU), (Level.O3, Unit.ANE)])
def test_optimized_models_compute_sizes_that_differ_though_they_have_one_name(
    tmp_path: Any, level: Level, unit: Unit, steps: int
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model_of(RESHAPED).SerializeToString())
    with WeightFile() as file:
        model = optimize(load(path), level, unit, file).model
        answer = _answer(model, **_given(steps))
    assert answer.shape == (2, steps, 24 // steps)
    np.testing.assert_allclose(answer, _answer(model_of(RESHAPED), **_given(steps)), rtol=1e-5)
    names = [[dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in model.graph.input]
    assert names == [["b", "n", 4]] * 2
    inner = {dim.dim_param for each in model.graph.value_info for dim in each.type.tensor_type.shape.dim}
    assert not any(" of " in name for name in inner)


@pytest.mark.parametrize("steps", [3, 6, 12])
def test_the_layout_computes_sizes_that_differ_though_they_have_one_name(steps: int) -> None:
    layout = Report()
    with WeightFile() as file:
        prepared = prepare(model_of(RESHAPED), ConversionOptions(), layout, silent, file)
        answer = _answer(prepared.model, **_given(steps))
    assert layout.num_layers == 1
    np.testing.assert_allclose(answer, _answer(model_of(RESHAPED), **_given(steps)), rtol=1e-5)


def test_names_are_given_to_inputs_that_share_them_and_taken_back() -> None:
    model = model_of('g (float[b,"2*s",t] x, float[b,s,s] y) => (float[b] z) { z = Identity (y) }')
    before = model.SerializeToString()
    former = give_own_names(model.graph)
    names = [[dim.dim_param for dim in each.type.tensor_type.shape.dim] for each in model.graph.input]
    assert names == [["b of x", "2 times s of x", "t"], ["b of y", "s of y", "s of y (2)"]]
    assert give_own_names(model.graph) == {}
    restore_names(model.graph, former)
    assert model.SerializeToString() == before


def test_sizes_that_an_operator_combines_have_one_name_again() -> None:
    """The tokens of a text and of its mask, but not those of an input of which only the size is read."""
    model = model_of("""g (float[b,n,4] x, float[b,n] mask, float[b,n] other) => (float[b,n,4] y, int64[2] size) {
        axis = Constant <value_ints = [2]> () column = Unsqueeze (mask, axis) relu = Relu (column)
        y = Mul (x, relu) size = Shape (other) }""")
    join_combined(model, give_own_names(model.graph))
    names = [[dim.dim_param for dim in each.type.tensor_type.shape.dim][:2] for each in model.graph.input]
    assert names[0] == names[1]
    assert set(names[0]).isdisjoint(names[2])
