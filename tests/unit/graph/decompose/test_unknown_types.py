"""Operators behind one that ONNX's inference does not know: they wait until its results have types."""

import numpy as np
import pytest

from support.graphs import answers, model_of
from triune.graph.normalize import foreign_ops, normalize

X = np.linspace(1.1, 4, 24, dtype=np.float32).reshape(1, 4, 6)
NODES = [
    *(f"b = {op} (a)" for op in ("Acosh", "Asinh", "Celu", "Mish", "Selu", "HardSwish", "LogSoftmax", "Dropout")),
    *(f"b = {op} (a, a, a)" for op in ("Sum", "Mean", "Max", "Min")),
    "b = Hardmax <axis = 1> (a)",
    "b = LpNormalization (a)",
    "n = IsNaN (a)  b = Where (n, x, a)",
    "n = IsInf <detect_negative = 0> (a)  b = Where (n, x, a)",
    "c = Constant <value = float {0.5}> ()  d = CastLike (c, a)  b = Mul (a, d)",
]


@pytest.mark.parametrize("nodes", NODES)
def test_what_an_operator_of_another_domain_makes_gets_a_type(nodes: str) -> None:
    model = model_of(
        f"""agraph (float[1,4,6] x) => (float[1,4,1] z, int64[3] y) {{
          a = com.microsoft.QuickGelu (x)  {nodes}  z = GlobalAveragePool (b)  y = Shape (z) }}""",
        opset=21,
        imports=', "com.microsoft" : 1',
    )
    normal = normalize(model)
    assert foreign_ops(normal) == []
    for actual, right in zip(answers(normal, {"x": X}), answers(model, {"x": X}), strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-5)


@pytest.mark.parametrize("nodes", NODES)
def test_what_nobody_knows_is_named(nodes: str) -> None:
    text = f"agraph (float[1,4,6] x) => (int64[3] y) {{ a = own.Secret (x)  {nodes}  y = Shape (b) }}"
    found = foreign_ops(normalize(model_of(text, opset=21, imports=', "own" : 1')))
    assert found[0].startswith("own:Secret")
