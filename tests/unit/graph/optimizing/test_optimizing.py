"""Levels of optimization: what is kept, and what is left out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, checker, helper, numpy_helper

from support.graphs import answers, model_of, ops_of
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Unit
from triune.graph.optimizing import comparison, levels
from triune.graph.optimizing.level import Level
from triune.graph.optimizing.levels import STEPS, Step
from triune.graph.optimizing.run import Optimized, optimize
from triune.graph.passes.run import GraphPass
from triune.graph.verify import Verdict
from triune.graph.weight_files import WeightFile, with_data

TEXT = """g (float[n,3,4] x) => (float[n,3,4] y) <float one = {1}, float[4] unused = {1, 2, 3, 4}> {
  a = Exp(x) b = Mul(a, one) c = Exp(x) d = Transpose<perm=[0,2,1]>(b) e = Transpose<perm=[0,2,1]>(d)
  dead = Neg(c) y = Add(e, c) }"""


@pytest.fixture
def file() -> Iterator[WeightFile]:
    with WeightFile() as made:
        yield made


def run(model: ModelProto | str, file: WeightFile, level: Level = Level.O1, **options: Any) -> Optimized:
    given = model_of(model, opset=20) if isinstance(model, str) else model
    return optimize(given, level, options.pop("unit", Unit.CPU), file, **options)


def same(before: ModelProto, after: ModelProto, inputs: Mapping[str, Any]) -> None:
    checker.check_model(with_data(after))
    for one, other in zip(answers(before, inputs), answers(with_data(after), inputs), strict=True):
        np.testing.assert_array_equal(one, other)


def test_exact_passes(file: WeightFile) -> None:
    done = run(TEXT, file)
    assert ops_of(done.model) == ["Exp", "Add"]
    assert not done.model.graph.initializer
    assert {each.name for each in done.passes} == {"tidy", "neutral", "transposes", "common"}
    assert not any(each.left_out for each in done.passes)
    same(model_of(TEXT, opset=20), done.model, {"x": np.ones((2, 3, 4), np.float32)})


def test_level_0_rewrites_nothing(file: WeightFile) -> None:
    done = run(TEXT, file, Level.O0)
    assert ops_of(done.model) == ops_of(model_of(TEXT, opset=20))
    assert {info.name for info in done.model.graph.value_info} == {"a", "b", "c", "d", "e", "dead"}
    assert not done.passes


def test_names_free_sizes_and_versions_stay(file: WeightFile) -> None:
    model = model_of(TEXT, opset=13)
    model.ir_version = 7
    done = run(model, file)
    assert done.model.ir_version == 7
    assert [each.version for each in done.model.opset_import] == [13]
    (x,) = done.model.graph.input
    assert [dim.dim_param or dim.dim_value for dim in x.type.tensor_type.shape.dim] == ["n", 3, 4]
    assert [each.name for each in done.model.graph.output] == ["y"]


def test_a_size_is_fixed_where_it_is_asked_for(file: WeightFile) -> None:
    from triune.graph.conversion.shapes import parse_shapes

    done = run(TEXT, file, shapes=parse_shapes(["x=2,3,4"]))
    assert [dim.dim_value for dim in done.model.graph.input[0].type.tensor_type.shape.dim] == [2, 3, 4]


@pytest.mark.parametrize("level", list(Level))
def test_an_optimized_model_is_not_changed_again(file: WeightFile, level: Level) -> None:
    once = run(TEXT, file, level)
    twice = run(once.model, file, level)
    assert not twice.passes
    assert twice.model.SerializeToString(deterministic=True) == once.model.SerializeToString(deterministic=True)


def test_defaults_of_inputs_stay(file: WeightFile) -> None:
    text = "g (float[2] x, float s) => (float[2] y) <float s = {1}> { y = Mul(x, s) }"
    done = run(text, file)
    assert ops_of(done.model) == ["Mul"]
    assert [each.name for each in done.model.graph.initializer] == ["s"]
    text = "g (float[2] x, float s) => (float[2] y) <float s = {1}> { y = Neg(x) }"
    assert [each.name for each in run(text, file).model.graph.initializer] == ["s"]


def test_functions_are_inlined(file: WeightFile) -> None:
    model = model_of(
        'g (float[2] x) => (float[2] y) { a = own.twice(x) y = own.twice(a) } <domain: "own", opset_import: ["" : 20]> '
        "twice (v) => (w) { w = Add(v, v) }",
        opset=20,
        imports=', "own" : 1',
    )
    done = run(model, file, Level.O0)
    assert ops_of(done.model) == ["Add", "Add"]
    assert any("inlined" in note for note in done.notes)


def test_initializers_of_old_files_need_not_be_inputs(file: WeightFile) -> None:
    model = model_of("g (float[2] x, float s) => (float[2] y) <float s = {1}> { y = Mul(x, s) }", opset=9)
    model.ir_version = 3
    done = run(model, file)
    assert done.model.ir_version == 4
    assert [each.name for each in done.model.graph.input] == ["x"]
    assert ops_of(done.model) == ["Identity"]


def test_large_weights_are_folded_but_do_not_grow(file: WeightFile) -> None:
    model = model_of("g (float[n,200] x) => (float[n,300] y) { v = Transpose(w) y = MatMul(x, v) }", opset=20)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((300, 200), np.float32), "w"))
    assert ops_of(run(model, file).model) == ["MatMul"]
    packed = model_of("g (float[n,200] x) => (float[n,300] y) { v = Cast<to=1>(w) y = MatMul(x, v) }", opset=20)
    packed.graph.initializer.append(numpy_helper.from_array(np.ones((200, 300), np.int8), "w"))
    assert ops_of(run(packed, file).model) == ["Cast", "MatMul"]


class Wrong(GraphPass):
    """Writes Neg for Exp."""

    name = "wrong"

    def __call__(self, model: ModelProto) -> ModelProto:
        for node in model.graph.node:
            if node.op_type == "Exp":
                node.op_type = "Neg"
        return model


class Renames(GraphPass):
    """Renames the output."""

    name = "renames"

    def __call__(self, model: ModelProto) -> ModelProto:
        model.graph.node.append(helper.make_node("Identity", ["y"], ["z"]))
        model.graph.output[0].name = "z"
        return model


class Fails(GraphPass):
    """Refuses every model."""

    name = "fails"

    def __call__(self, model: ModelProto) -> ModelProto:
        raise UnsupportedError("it takes no model")


@pytest.mark.parametrize(
    ("faulty", "why"), [(Wrong, "output 'y' is off by"), (Renames, "the names of outputs"), (Fails, "takes no model")]
)
def test_a_wrong_pass_is_left_out(
    file: WeightFile, monkeypatch: pytest.MonkeyPatch, faulty: type[GraphPass], why: str
) -> None:
    step = Step(faulty.name, "what", "why", Level.O1, lambda given: faulty())
    steps: Sequence[Step] = (step, *STEPS)
    monkeypatch.setattr(levels, "STEPS", steps)
    done = run(TEXT, file)
    assert ops_of(done.model) == ["Exp", "Add"]
    (found,) = [each for each in done.passes if each.left_out]
    assert found.name == faulty.name
    assert why in found.left_out
    assert found.num_nodes_before == found.num_nodes_after


def test_the_result_is_compared_as_a_whole(file: WeightFile, monkeypatch: pytest.MonkeyPatch) -> None:
    from triune.graph.optimizing.comparison import Comparison

    monkeypatch.setattr(levels, "STEPS", (Step("wrong", "what", "why", Level.O1, lambda given: Wrong()),))
    monkeypatch.setattr(Comparison, "wrong", lambda *given, **options: "")
    done = run(TEXT, file)
    assert ops_of(done.model) == ops_of(model_of(TEXT, opset=20))
    assert "at the end, output 'y' is off by" in done.passes[0].left_out
    forced = run(TEXT, file, force=True)
    assert ops_of(forced.model).count("Neg") == 2
    assert forced.outputs[0].verdict is Verdict.WRONG


def test_a_model_that_cannot_be_compared_is_refused(file: WeightFile) -> None:
    text = "g (string[2] x) => (string[2] y) { a = Identity(x) y = Identity(a) }"
    with pytest.raises(UnsupportedError, match="not a tensor of numbers.*--force"):
        run(text, file)
    done = run(text, file, force=True)
    assert ops_of(done.model) == ["Identity"]
    assert "not a tensor of numbers" in done.not_compared


def test_inputs_that_do_not_fit_are_refused(file: WeightFile) -> None:
    with pytest.raises(InvalidArgumentError, match="there is no input 'z'"):
        run(TEXT, file, inputs={"z": np.ones(2)})


def test_a_broken_model_is_refused(file: WeightFile) -> None:
    model = model_of(TEXT, opset=20)
    model.graph.node.append(NodeProto(op_type="Add", input=["x"], output=["q"]))
    with pytest.raises(InvalidArgumentError, match="not valid ONNX"):
        run(model, file)


def test_operator_sets_before_7_are_refused(file: WeightFile) -> None:
    with pytest.raises(UnsupportedError, match="operator set 6; the oldest that is optimized is 7"):
        run(model_of("g (float[2] x) => (float[2] y) { y = Neg(x) }", opset=6), file)


def test_random_models_are_optimized(file: WeightFile) -> None:
    text = "g (float[2] x) => (float[2] y) <float one = {1}> { a = RandomUniformLike(x) b = Mul(a, one) y = Add(b, x) }"
    done = run(text, file)
    assert ops_of(done.model) == ["RandomUniformLike", "Add"]


BLOCK = """g (float[b,s,8] x, float[1,1,1,s] mask) => (float[b,s,8] y) <int64[4] heads = {0, 0, 2, 4},
  int64[3] merged = {0, 0, 8}, float scale = {0.5}, float[8] gain = {1,1,1,1,1,1,1,1},
  float[8] shift = {0,0,0,0,0,0,0,0}> {
  n = LayerNormalization<axis=-1>(x, gain, shift) q = MatMul(n, a) k = MatMul(n, c) v = MatMul(n, d)
  qh = Reshape(q, heads) kh = Reshape(k, heads) vh = Reshape(v, heads)
  qt = Transpose<perm=[0,2,1,3]>(qh) kt = Transpose<perm=[0,2,3,1]>(kh) vt = Transpose<perm=[0,2,1,3]>(vh)
  p = MatMul(qt, kt) r = Mul(p, scale) m = Add(r, mask) w = Softmax<axis=-1>(m) o = MatMul(w, vt)
  ot = Transpose<perm=[0,2,1,3]>(o) oh = Reshape(ot, merged) y = MatMul(oh, e) }"""


def block() -> ModelProto:
    """A small attention with a mask."""
    model, rng = model_of(BLOCK, opset=18), np.random.default_rng(0)
    for name in "acde":
        weight = rng.standard_normal((8, 8)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    return model


@pytest.mark.parametrize(("unit", "op"), [(Unit.ANE, "Conv"), (Unit.GPU, "Split"), (Unit.CPU, "LayerNormalization")])
def test_what_a_unit_gains_from(file: WeightFile, unit: Unit, op: str) -> None:
    done = run(block(), file, Level.O3, unit=unit)
    assert not [each.left_out for each in done.passes if each.left_out]
    assert op in ops_of(done.model)
    assert [each.verdict for each in done.outputs] == [Verdict.RIGHT]
    again = run(done.model, file, Level.O3, unit=unit)
    assert not again.passes
    assert ops_of(again.model) == ops_of(done.model)


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("c = Exp(x)", "c = RandomNormalLike(x)")])
def test_sessions_of_large_sources_are_closed(file: WeightFile, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(comparison, "_MOST_HELD_BYTES", -1)
    monkeypatch.setattr(levels, "STEPS", (*STEPS, Step("wrong", "what", "why", Level.O1, lambda given: Wrong())))
    done = run(text, file)
    assert len(done.model.graph.node) == len(run(text, file, Level.O0).model.graph.node) - 5 + ("Random" in text)
    wrong = [each.name for each in done.passes if each.left_out]
    assert wrong == ([] if "Random" in text else ["wrong"])


def test_steps_say_why_they_are_where_they_are() -> None:
    assert len({step.name for step in STEPS}) == len(STEPS)
    for step in STEPS:
        assert step.what
        assert step.why_here
        assert replace(step, units=frozenset([Unit.ANE])).is_for(step.level, Unit.CPU) is False
