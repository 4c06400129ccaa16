"""Random graphs compute the same at every level: any nodes, any outputs."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, checker

from support.examples import examples
from support.graphs import answers, model_of
from triune.core.units import Unit
from triune.graph.optimizing.level import Level
from triune.graph.optimizing.run import optimize
from triune.graph.weight_files import WeightFile, with_data

_UNARY = (
    *("Exp({0})", "Neg({0})", "Relu({0})", "Identity({0})", "Sigmoid({0})", "Dropout({0})", "Erf({0})"),
    *("Transpose<perm=[1,0]>({0})", "Reshape({0}, shape)", "Reshape({0}, flat)", "Mul({0}, one)", "Sub({0}, zero)"),
    *("Cast<to=11>({0})", "Softmax<axis=0>({0})", "ReduceMean({0}, axis)", "Gather<axis=0>({0}, rows)"),
    *("Unsqueeze({0}, axis)", "MatMul({0}, square)", "Add({0}, bias)", "Clip({0}, zero, one)"),
)
_BINARY = ("Add({0}, {1})", "Mul({0}, {1})", "Sub({0}, {1})", "Max({0}, {1})", "Where(yes, {0}, {1})")

_CONSTANTS = """float one = {1}, float zero = {0}, int64[2] shape = {3, 3}, int64[1] flat = {-1}, int64[1] axis = {0},
  int64[3] rows = {2, 0, -2}, float[3,3] square = {1, -1, 2, 0, 1, 1, 3, 1, -2}, float[3] bias = {1, 2, 3},
  bool yes = {1}"""


@st.composite
def models(draw: st.DrawFn) -> ModelProto:
    """Models of [3, 3]: each node's result is brought back to fp32 of [3, 3]."""
    values, lines = ["x", "w"], list[str]()
    for number in range(draw(st.integers(1, 8))):
        is_binary = draw(st.booleans())
        form = draw(st.sampled_from(_BINARY if is_binary else _UNARY))
        operands = [draw(st.sampled_from(values)) for _ in range(2)]
        name = f"v{number}"
        lines.append(f"{name}r = {form.format(*operands)}")
        if form.startswith("Cast"):
            lines.append(f"{name} = Cast<to=1>({name}r)")
        elif form.startswith(("Reshape({0}, flat", "Unsqueeze")):
            lines.append(f"{name} = Reshape({name}r, shape)")
        elif form.startswith("ReduceMean"):
            lines.append(f"{name} = Expand({name}r, shape)")
        else:
            lines[-1] = f"{name} = {form.format(*operands)}"
        values.append(name)
    outputs = draw(st.lists(st.sampled_from(values[2:]), min_size=1, max_size=3, unique=True))
    named = ", ".join(f"float[3,3] {name}" for name in outputs)
    return model_of(f"g (float[3,3] x, float[3,3] w) => ({named}) <{_CONSTANTS}> {{ {' '.join(lines)} }}", opset=20)


@given(models(), st.sampled_from(list(Level)), st.sampled_from((Unit.CPU, Unit.AMX)))
@examples(120)
def test_answers_stay(model: ModelProto, level: Level, unit: Unit) -> None:
    rng = np.random.default_rng(3)
    inputs: dict[str, Any] = {name: rng.standard_normal((3, 3)).astype(np.float32) for name in "xw"}
    with WeightFile() as file:
        done = optimize(model, level, unit, file)
        assert [each.left_out for each in done.passes if each.left_out] == []
        after = with_data(done.model)
        checker.check_model(after)
        assert len(after.graph.node) <= len(model.graph.node)
        again = optimize(done.model, level, unit, file)
        assert not again.passes
    expected = answers(model, inputs)
    for name, one, other in zip(
        (each.name for each in model.graph.output), expected, answers(after, inputs), strict=True
    ):
        size = max(float(np.abs(one[np.isfinite(one)]).max(initial=0)), 1e-2)
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5 * size, err_msg=name)
