"""Loops and recurrent layers whose states are beyond fp16, or in which rounding errors add up; and results of If."""

import numpy as np

from support.half_cases.case import floats, half_case, noise, number

_GOES_ON = np.array(True)
_ZERO = np.zeros((1, 3), np.float32)


def _loop(body: str, num_steps: int = 4000, start: str = "z") -> str:
    """A Loop with the carried value `s`, from which `body` computes the next value `t`."""
    return f"""n = Constant <value_int = {num_steps}> () y = Loop (n, go, {start}) <body = b (int64 i, bool c,
        float[1,3] s) => (bool d, float[1,3] t) {{ d = Identity (c) {body} }}>"""


def _counter(gates: int) -> np.ndarray:
    """The bias of an LSTM whose cell grows by a third in each step."""
    bias = np.zeros((1, 2 * 4 * gates), np.float32)
    bias[:, gates : 2 * gates] = -20
    bias[:, 2 * gates : 3 * gates] = 20
    bias[:, 3 * gates : 4 * gates] = 0.8
    return bias


_FEW = floats(0.9999, 1.002, 1.006)

STATES = (
    half_case("loop_sum", _loop("a = Sigmoid (x) t = Add (s, a)"), {"go": _GOES_ON, "z": _ZERO}, x=_FEW),
    half_case("loop_large", _loop("t = Add (s, x)", 100), {"go": _GOES_ON, "z": _ZERO}, x=_FEW * 1000),
    half_case("loop_unrolled", _loop("t = Exp (s)", 3, "x"), {"go": _GOES_ON}, x=floats(0.5, 0.9, -1)),
    half_case("loop_product", _loop("t = Mul (s, x)", 1000, "x"), {"go": _GOES_ON}, x=_FEW),
    half_case(
        "loop_until_near",
        """half = Constant <value_float = 0.5> () one = Constant <value_float = 1.0> ()
            near = Constant <value_float = 0.0001> () n = Constant <value_int = 300> ()
            e, k = Loop (n, go, x, o) <body = b (int64 i, bool c, float[1,3] s, float[1] f)
                => (bool d, float[1,3] t, float[1] g) {
            r = Div (x, s) a = Add (s, r) t = Mul (a, half)
            w = Sub (t, s) v = Abs (w) u = ReduceMax <keepdims = 0> (v) d = Greater (u, near) g = Add (f, one) }>
            y = Add (k, zero)""",
        {
            "go": _GOES_ON,
            "o": np.zeros(1, np.float32),
            "zero": number(0),
        },
        x=floats(37.3, 2.1, 5.7),
    ),
    half_case(
        "scan_decay",
        """decay = Constant <value_float = 0.9999> ()
            l, y = Scan <num_scan_inputs = 1, body = b (float[3] s, float[3] r) => (float[3] t, float[3] o) {
            m = Mul (s, decay) t = Add (m, r) o = Identity (t) }> (z, x)""",
        {"z": np.zeros(3, np.float32)},
        x=np.abs(noise(2000, 3)),
    ),
    half_case(
        "rnn_relu",
        'y, h = RNN <hidden_size = 2, activations = ["Relu"]> (x, w, r)',
        {"w": np.ones((1, 2, 3), np.float32), "r": np.full((1, 2, 2), 0.7, np.float32)},
        x=np.abs(noise(40, 1, 3)),
    ),
    half_case(
        "lstm_cell",
        "o, h, y = LSTM <hidden_size = 2> (x, w, r, b)",
        {"w": np.zeros((1, 8, 3), np.float32), "r": np.zeros((1, 8, 2), np.float32), "b": _counter(2)},
        x=noise(5000, 1, 3),
    ),
    half_case(
        "lstm_relu",
        'y, h, c = LSTM <hidden_size = 2, activations = ["Sigmoid", "Relu", "Relu"]> (x, w, r)',
        {"w": np.ones((1, 8, 3), np.float32), "r": np.full((1, 8, 2), 0.7, np.float32)},
        x=np.abs(noise(60, 1, 3)),
    ),
    half_case(
        "if_beyond",
        """big = Constant <value_float = 1000000.0> () p = ReduceSum <keepdims = 0> (x) c = Greater (p, zero)
            m = If (c) <then_branch = t () => (float[1,3] a) {
            e = Sigmoid (x) a = Mul (e, big) }, else_branch = f () => (float[1,3] b) { b = Identity (x) }>
            y = LogSoftmax (m)""",
        {"zero": number(0)},
        x=floats(1, 2, 0.5),
    ),
)
