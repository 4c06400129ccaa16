"""New names: none is a name that the model has, whatever its values are called."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper

from support.graphs import answers, model_of
from triune.graph.half.variances import FoldVariances
from triune.graph.normalize import normalize
from triune.graph.passes.conv_affine import ConvAffine
from triune.graph.passes.halve import Halve
from triune.graph.passes.hard_swish import HardSwish
from triune.graph.passes.infer import Infer
from triune.graph.passes.narrow import Narrow
from triune.graph.values import subgraphs_of
from triune.graph.weight_files import WeightFile


def values_of(graph: GraphProto) -> Iterator[str]:
    yield from (value.name for value in (*graph.input, *graph.initializer))
    for node in graph.node:
        yield from filter(None, node.output)
        for inner in subgraphs_of(node):
            yield from values_of(inner)


def occupied(model: ModelProto, names: list[str]) -> ModelProto:
    """The model, with an output "taken" of values that are called `names`: 1, 2, 3... times the input "given"."""
    copy = ModelProto.FromString(model.SerializeToString())
    previous = "given"
    for name in names:
        copy.graph.node.append(helper.make_node("Add", [previous, "given"], [name]))
        previous = name
    copy.graph.node.append(helper.make_node("Concat", names, ["taken"], axis=0))
    copy.graph.input.append(helper.make_tensor_value_info("given", TensorProto.FLOAT, [1]))
    copy.graph.output.append(helper.make_tensor_value_info("taken", TensorProto.FLOAT, [len(names)]))
    return copy


def swish(model: ModelProto) -> ModelProto:
    return HardSwish()(normalize(model))


def affine(model: ModelProto) -> ModelProto:
    with WeightFile() as file:
        return ConvAffine(file)(normalize(model))


def folded(model: ModelProto) -> ModelProto:
    return FoldVariances()(normalize(model))


def narrowed(model: ModelProto) -> ModelProto:
    return Narrow()(normalize(model))


def halved(model: ModelProto) -> ModelProto:
    return Halve(["Exp"])(normalize(model))


X = "float[1,2,3,3] x"


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (
            normalize,
            "(float[4,2] x) => (float[2] y) { s = SplitToSequence <keepdims = 0> (x)  i = Constant <value = int64 "
            "{1}> ()  y = SequenceAt (s, i) }",
        ),
        (
            normalize,
            "(bool c, float[2] x) => (float[1] y) <float n = {3}, float[1] m = {4}> { y = If (c) <then_branch = "
            "g () => (float a) { a = Neg (n) }, else_branch = h () => (float[1] b) { b = Neg (m) }> }",
        ),
        (normalize, "(float[2] x) => (float[2] y) { y = Mish (x) }"),
        (narrowed, "(float[3] x, int64[1] i) => (float[?] y, int64[1] z) { y = Tile (x, i)  z = Shape (y) }"),
        (narrowed, "(int8[3] i, float[3] x) => (int8[3] y) { y = Add (i, i) }"),
        (
            swish,
            "(float[3] x) => (float[3] y) <float a = {3}, float b = {0}, float d = {6}, float e = {0.5}> "
            "{ s = Add (x, a)  t = Clip (s, b, d)  p = Mul (x, t)  y = Mul (p, e) }",
        ),
        (
            folded,
            f"({X}) => (float[1,2,3,3] y) <float[2] s = {{1, 2}}, float[2] v = {{90000, 4}}> "
            "{ y = BatchNormalization (x, s, s, s, v) }",
        ),
        (
            affine,
            f"({X}) => (float[1,2,3,3] y) <float[2,2,1,1] w = {{1, 2, 3, 4}}, float[2] s = {{1, 2}}> "
            "{ c = Conv (x, w)  y = BatchNormalization (c, s, s, s, s) }",
        ),
        (halved, "(float[3] x) => (float[3] y, float[3] z) { a = Neg (x)  y = Exp (a)  z = Mul (a, x) }"),
    ],
)
def test_no_step_takes_a_name_that_the_model_has(step: Callable[[ModelProto], ModelProto], text: str) -> None:
    model = model_of(f"agraph {text}")
    made = [name for name in values_of(step(Infer()(model)).graph) if name not in set(values_of(model.graph))]
    assert made
    model = Infer()(occupied(model, made))
    inputs = {"given": np.array([0.5], np.float32)}
    chance = np.random.default_rng(0)
    for value in model.graph.input:
        kind, shape = value.type.tensor_type, [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        inputs.setdefault(value.name, chance.integers(0, 3, shape).astype(dtype))
    result = step(model)
    names = list(values_of(result.graph))
    assert len(names) == len(set(names))
    types = {value.name: value.type.tensor_type.elem_type for value in result.graph.input}
    given = {name: array.astype(helper.tensor_dtype_to_np_dtype(types[name])) for name, array in inputs.items()}
    for actual, right in zip(answers(result, given), answers(model, inputs), strict=True):
        np.testing.assert_allclose(actual, right, rtol=2e-3, atol=2e-3)
