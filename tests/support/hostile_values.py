"""Operators with inputs that control the computation, with valid and with invalid values for these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from support.graphs import model_of

MOST, LEAST, HUGE = 2**63 - 1, -(2**63), 2**40
NAN, INF = float("nan"), float("inf")
X = np.arange(24.0).reshape(2, 3, 4)
ROWS = np.ones((3, 4))


@dataclass(frozen=True)
class HostileValues:
    """A model with one relevant node, whose output is `y`; its valid inputs; and bad values that replace some of them,
    one at a time.
    """

    inputs: str
    output: str
    body: str
    taken: Mapping[str, Any]
    refused: Sequence[Mapping[str, Any]]
    opset: int = 20

    @property
    def name(self) -> str:
        return self.body.partition("(")[0].partition("<")[0].rpartition(" ")[2]

    def model(self) -> ModelProto:
        text = f"g ({self.inputs}) => ({self.output} y) {{ {self.body} }}"
        return model_of(text, opset=self.opset, imports=', "ai.onnx.ml" : 3')

    def arrays(self, values: Mapping[str, Any]) -> dict[str, Any]:
        types = {value.name: value.type.tensor_type.elem_type for value in self.model().graph.input}
        dtypes = {name: helper.tensor_dtype_to_np_dtype(types[name]) for name in values}
        # In requests a scalar has the shape [1], as in Triton.
        return {name: np.atleast_1d(np.array(value, dtypes[name])) for name, value in values.items()}


def _of(name: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


_F3, _I = "float[a,b,c]", "int64[n]"

HOSTILE_VALUES = [
    HostileValues(
        f"{_F3} x, float[3] s",
        "float[d,e,f]",
        "y = Resize(x, , s)",
        {"x": X, "s": [1, 1, 2]},
        _of("s", [[1, 1, NAN], [1, 1, 0], [1, 1, -1], [1, 1, INF], [1, 1, 1e30], [1e6, 1e6, 1e6]]),
    ),
    HostileValues(
        f"{_F3} x, int64[3] s",
        "float[d,e,f]",
        "y = Resize(x, , , s)",
        {"x": X, "s": [2, 3, 8]},
        _of("s", [[2, 3, 0], [2, 3, -1], [2, 3, MOST], [LEAST, 3, 4], [2, 3, HUGE]]),
    ),
    HostileValues(
        f"{_F3} x, int64[1] k",
        "float[d,e,f]",
        "y, i = TopK(x, k)",
        {"x": X, "k": [2]},
        _of("k", [[-1], [5], [MOST], [LEAST]]),
    ),
    HostileValues(f"{_F3} x, int64 s", _F3, "y = CumSum(x, s)", {"x": X, "s": 1}, _of("s", [7, -4, LEAST])),
    HostileValues(
        f"{_F3} x, int64[6] s",
        "float[d,e,f]",
        "y = Pad(x, s)",
        {"x": X, "s": [0, 0, 1, 0, 0, 1]},
        _of("s", [[0, 0, MOST, 0, 0, MOST], [0, 0, -9, 0, 0, 0], [0, 0, LEAST, 0, 0, 1], [0, 0, HUGE, 0, 0, 0]]),
    ),
    HostileValues(
        f"{_F3} x, int64[6] s",
        "float[d,e,f]",
        'y = Pad<mode = "reflect">(x, s)',
        {"x": X, "s": [0, 0, 1, 0, 0, 1]},
        _of("s", [[0, 0, 9, 0, 0, 9], [0, 0, MOST, 0, 0, MOST], [0, 0, -9, 0, 0, 0]]),
    ),
    HostileValues(
        f"{_F3} x, int64[2] s, int64[1] t",
        "float[d,e,f]",
        "y = Pad(x, s, , t)",
        {"x": X, "s": [0, 1], "t": [1]},
        _of("t", [[5], [-5], [LEAST]]),
    ),
    HostileValues(
        f"{_I} s",
        "float[d,e]",
        "y = ConstantOfShape(s)",
        {"s": [2, 3]},
        _of("s", [[-1, 2], [MOST, MOST], [HUGE, HUGE], [LEAST, 1], [2**20, 2**20]]),
    ),
    HostileValues(
        f"{_F3} x, int64[3] s",
        "float[d,e,f]",
        "y = Tile(x, s)",
        {"x": X, "s": [1, 1, 2]},
        _of("s", [[1, 1, -2], [MOST, MOST, MOST], [1, 1, HUGE], [LEAST, 1, 1]]),
    ),
    HostileValues(
        f"{_F3} x, {_I} s",
        "float[d,e,f]",
        "y = Expand(x, s)",
        {"x": X, "s": [2, 3, 4]},
        _of("s", [[5, 3, 4], [-1, 3, 4], [2, 2], [MOST, 1, 1, 1], [HUGE, 1, 1, 1], [LEAST, 1, 1, 1]]),
    ),
    HostileValues(
        f"{_F3} x, {_I} s",
        "float[d,e]",
        "y = Reshape(x, s)",
        {"x": X, "s": [6, 4]},
        _of("s", [[5, 4], [-1, -1], [-2, 4], [MOST, MOST], [0, 0, 0, 0], [LEAST, 4], [-1, 7], [5, -1]]),
    ),
    HostileValues(
        f"{_F3} x, {_I} s", "float[n,b,c]", "y = Gather(x, s)", {"x": X, "s": [1]}, _of("s", [[2], [-3], [MOST]])
    ),
    HostileValues(
        f"{_F3} x, int64[a,b,c] s",
        _F3,
        "y = GatherElements(x, s)",
        {"x": X, "s": np.zeros((2, 3, 4))},
        _of("s", [np.full((2, 3, 4), 9), np.full((2, 3, 4), LEAST), np.zeros((3, 4, 5))]),
    ),
    HostileValues(
        f"{_F3} x, int64[n,k] s",
        "float[n,c]",
        "y = GatherND(x, s)",
        {"x": X, "s": [[0, 1]]},
        _of("s", [[[0, 9]], [[-5, 0]], [[LEAST, 0]], [[0, 0, 0, 0]]]),
    ),
    HostileValues(
        f"{_F3} x, {_I} s, {_I} e, {_I} t, {_I} p",
        "float[d,e,f]",
        "y = Slice(x, s, e, t, p)",
        {"x": X, "s": [0], "e": [2], "t": [2], "p": [1]},
        [{"p": [0]}, {"t": [9]}, {"t": [-9]}, {"s": [0, 0], "e": [1, 1], "t": [2, 2], "p": [1, 1]}],
    ),
    HostileValues(
        "int64 s, int64 e, int64 d",
        "int64[n]",
        "y = Range(s, e, d)",
        {"s": 0, "e": 5, "d": 1},
        [{"d": 0}, {"e": MOST}, {"s": LEAST, "e": MOST}, {"e": HUGE}],
    ),
    HostileValues(
        "float s, float e, float d",
        "float[n]",
        "y = Range(s, e, d)",
        {"s": 0, "e": 5, "d": 1},
        [{"d": 0}, {"e": NAN}, {"e": INF}, {"d": NAN}, {"d": 1e-30}],
    ),
    HostileValues(
        f"{_I} x, int64 d, float[2] v",
        "float[n,d]",
        "y = OneHot(x, d, v)",
        {"x": [1, 2], "d": 4, "v": [0, 1]},
        _of("d", [0, -1, MOST, HUGE, LEAST]),
    ),
    HostileValues(
        f"{_F3} x, int64[2] s",
        "float[a,b,d]",
        "y, z = Split<axis = 2>(x, s)",
        {"x": X, "s": [2, 2]},
        _of("s", [[1, 2], [-1, 5], [MOST, MOST], [LEAST, LEAST]]),
    ),
    HostileValues(
        f"{_F3} x, int64 s",
        "float[b,c]",
        "q = SplitToSequence<keepdims = 0>(x) y = SequenceAt(q, s)",
        {"x": X, "s": 1},
        _of("s", [2, -3, LEAST]),
    ),
    HostileValues(
        f"{_F3} x, int64[n,1] s, float[n,b,c] u",
        _F3,
        "y = ScatterND(x, s, u)",
        {"x": X, "s": [[0]], "u": X[:1]},
        [{"s": [[9]]}, {"s": [[LEAST]]}, {"u": X[:1, :2]}],
    ),
    HostileValues(
        f"{_F3} x, int64[d,e,f] s, float[d,e,f] u",
        _F3,
        "y = ScatterElements(x, s, u)",
        {"x": X, "s": [[[0]]], "u": [[[0]]]},
        [{"s": [[[9]]]}, {"s": [[[LEAST]]]}, {"s": np.zeros((1, 9, 1)), "u": np.zeros((1, 9, 1))}],
    ),
    HostileValues(
        f"{_F3} x, {_I} s",
        "float[d,e,f,g]",
        "y = Unsqueeze(x, s)",
        {"x": X, "s": [0]},
        _of("s", [[0, 0], [9], [-9], [LEAST], [0, -5]]),
    ),
    HostileValues(
        f"{_F3} x, {_I} s", "float[d,e]", "y = Squeeze(x, s)", {"x": X[:1], "s": [0]}, _of("s", [[1], [9], [LEAST]])
    ),
    HostileValues(
        f"{_F3} x, {_I} s", "float[d,e,f]", "y = ReduceSum(x, s)", {"x": X, "s": [0]}, _of("s", [[9], [-9], [LEAST]])
    ),
    HostileValues(
        "float[a,b] x, float[c,d] w", "float[a,d]", "y = MatMul(x, w)", {"x": ROWS, "w": ROWS.T}, [{"w": ROWS}]
    ),
    HostileValues(
        f"{_F3} x, float[d,e,f] w",
        "float[a,d,g]",
        "y = Conv(x, w)",
        {"x": X, "w": np.ones((2, 3, 2))},
        _of("w", [np.ones((2, 4, 2)), np.ones((2, 3, 9)), np.ones((2, 3, 0))]),
    ),
    HostileValues(f"{_I} x, {_I} d", _I, "y = Mod(x, d)", {"x": [1], "d": [1]}, [{"d": [0]}]),
    HostileValues(
        "float[1,n,4] b, float[1,c,n] s, int64 k, float t",
        "int64[m,3]",
        "y = NonMaxSuppression(b, s, k, t)",
        {"b": X[:1, :2], "s": [[[1, 1]]], "k": 2, "t": 0.5},
        [{"t": 7}, {"t": NAN}, {"t": -1}, {"s": np.ones((1, 1, 5))}],
    ),
    HostileValues(
        f"{_F3} x, {_I} s",
        _F3,
        "y = ReverseSequence(x, s)",
        {"x": X, "s": [1, 2, 1]},
        _of("s", [[9, 9, 9], [-1, 0, 0], [1, 1]]),
    ),
    HostileValues(
        "float[a,2,3] x, int64[4] s",
        "float[d,e,f,2]",
        "y = AffineGrid(x, s)",
        {"x": np.ones((1, 2, 3)), "s": [1, 1, 2, 2]},
        _of("s", [[1, 1, -2, 2], [5, 1, 2, 2], [1, 1, MOST, MOST], [1, 1, HUGE, 2]]),
    ),
    HostileValues(
        "float[a,b,1] x, int64 n, int64 d",
        "float[a,c,2]",
        "y = DFT(x, n, d)",
        {"x": np.ones((1, 4, 1)), "n": 4, "d": 1},
        [{"n": 0}, {"n": MOST}, {"d": 7}, {"d": 2}],
    ),
    HostileValues("int64 n", "float[a]", "y = HannWindow(n)", {"n": 4}, _of("n", [-1, MOST, HUGE, LEAST])),
    HostileValues("float[a,b] x", "int64[a,1]", "y = ArgMax<axis = 1>(x)", {"x": ROWS}, [{"x": ROWS[:, :0]}]),
    HostileValues(
        "string[a] x", "int64[a]", "y = Cast<to = 7>(x)", {"x": [b"1"]}, _of("x", [[b"abc"], [b""], [b"9" * 30]])
    ),
    HostileValues(
        "float[a] x, float r, bool t",
        "float[a]",
        "y = Dropout(x, r, t)",
        {"x": [1], "r": 0.5, "t": True},
        _of("r", [1, 2, -1, NAN]),
    ),
    HostileValues(
        "float[a,b,c,d] x, float[a,b,e,d] u, int64[a] p",
        "float[a,b,c,d]",
        "y = TensorScatter<axis = 2>(x, u, p)",
        {"x": X[None], "u": X[None, :, :1], "p": [0]},
        _of("p", [[9], [LEAST]]),
        opset=24,
    ),
    HostileValues(
        f"{_F3} x, float[3] s",
        "float[d,e,f]",
        "y = Upsample(x, s)",
        {"x": X, "s": [1, 1, 2]},
        _of("s", [[1, 1, NAN], [1, 1, 0], [1, 1, -1]]),
        opset=9,
    ),
    HostileValues(
        "bool c, float[a] x, int64[n] s",
        "float[d]",
        "y = If(c) <then_branch = t () => (float[d] u) { u = Reshape(x, s) },"
        " else_branch = e () => (float[a] v) { v = Identity(x) }>",
        {"c": False, "x": [1, 2], "s": [2]},
        [{"c": True, "s": [9]}],
    ),
    HostileValues(
        "int64[2] s, float[a] x",
        "float[a]",
        "t = Constant<value_int = 2>() y, z = Loop(t, , x) <body = b (int64 j, bool go, float[p] u) =>"
        " (bool still, float[p] c, float[p] k) { still = Identity(go)  w = Gather(s, j)"
        " o = Constant<value_ints = [-1]>()  q = Reshape(w, o)  c = Identity(u)  k = ConstantOfShape(q) }>",
        {"s": [2, 2], "x": [1]},
        _of("s", [[2, 3], [-2, -2]]),
    ),
    HostileValues(
        "int64[a] x",
        "float[a,b]",
        "y = ai.onnx.ml.OneHotEncoder<cats_int64s = [1, 2], zeros = 0>(x)",
        {"x": [1]},
        [{"x": [9]}],
    ),
]
