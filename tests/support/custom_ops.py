"""A file of custom operators, and models that use them."""

import numpy as np
from onnx import ModelProto, numpy_helper

from support.graphs import model_of

SOURCE = """
import numpy as np
import triune


@triune.custom_op("my.domain::Swish", body='''
    <domain: "my.domain", opset_import: ["" : 20]>
    Swish <beta: float = 1.0> (x) => (y) {
        b = Constant <value_float: float = @beta> ()
        scaled = Mul (x, b)
        gate = Sigmoid (scaled)
        y = Mul (x, gate)
    }''')
def swish(x, *, beta=1.0):
    return x / (1 + np.exp(-beta * x))


@triune.custom_op("my.domain::Ranks", outputs=[np.int64, "x"])
def ranks(x, w, *, axis=-1):
    if x.shape[0] == 7:
        raise ValueError("seven rows are too many")
    return np.argsort(x, axis=axis), np.sort(x, axis=axis) * w


@triune.custom_op("my.domain::Sorted")
def in_order(x):
    return np.sort(x, axis=-1)
"""
"""`Swish` has a body, `Ranks` and `Sorted` are in numpy alone."""

_IMPORTS = ', "my.domain" : 1'


def with_body(opset: int = 17) -> ModelProto:
    """A model of custom operators with a body, whose operator set differs from that of the body."""
    text = """g (float[rows,3] x) => (float[rows,3] y) {
        a = my.domain.Swish<beta = 2.0>(x)  b = my.domain.Swish(a)  y = Add(b, x) }"""
    return model_of(text, opset=opset, imports=_IMPORTS)


def in_numpy() -> ModelProto:
    """A model with an operator that only numpy computes. One of the operator's inputs is computed from constants."""
    text = """g (float[rows,3] x) => (float[rows,3] y, int64[rows,3] order) <float[3] w = {1, 2, 3}> {
        a = my.domain.Swish<beta = 2.0>(x)  v = Neg(w)  order, sorted = my.domain.Ranks(a, v)
        b = my.domain.Swish(sorted)  y = Add(b, x) }"""
    return model_of(text, opset=20, imports=_IMPORTS)


def with_weights(op: str, *, opset: int = 21) -> ModelProto:
    """A model with an operator between two products of weights: "Swish" has a body, "Sorted" is in numpy alone."""
    text = f"""g (float[rows,64] x) => (float[rows,32] y) {{
        a = MatMul(x, first)  b = my.domain.{op}(a)  c = Relu(b)  y = MatMul(c, second) }}"""
    model = model_of(text, opset=opset, imports=_IMPORTS)
    rng = np.random.default_rng(5)
    for name, shape in (("first", (64, 64)), ("second", (64, 32))):
        array = rng.standard_normal(shape).astype(np.float32) / 8
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model
