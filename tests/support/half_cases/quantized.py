"""Quantized numbers of more than 8 bits or of small scales, and factors that fp16 has with fewer digits."""

import numpy as np

from support.half_cases.case import HalfCase, floats, half_case, noise, number

_ROWS = np.eye(4, dtype=np.float32)
_LEVELS = np.arange(256, dtype=np.uint8).reshape(4, 64)
_BYTES = np.array([[-128, 127, 100, -1]] * 4, np.int8)


def _levels(name: str, nodes: str) -> HalfCase:
    """A case whose output is quantized levels. `f` is computed from the levels `x`, and fp32 gives the same levels
    again.
    """
    constants = {"s": number(0.047), "z": np.array(120, np.uint8), "w": noise(64, 32), "t": number(1 / 256)}
    text = f"d = DequantizeLinear (x, s, z) {nodes} q = QuantizeLinear (f, t, z) y = Cast <to = 1> (q)"
    return half_case(name, text, constants, bound=1e-6, x=_LEVELS)


QUANTIZED = (
    _levels("levels_of_a_sigmoid", "f = Sigmoid (d)"),
    _levels("levels_of_a_gelu", "f = Gelu (d)"),
    _levels("levels_of_shares", "f = Softmax (d)"),
    _levels("levels_of_a_layer", "m = MatMul (d, w) r = Relu (m) f = Mul (r, t)"),
    half_case("small_factor", "m = Mul(x, e) y = Mul(m, f)", {"e": number(3e-5), "f": number(1000)}, x=floats(1, 2, 3)),
    half_case(
        "small_factor_of_negative_numbers",
        "n = Neg(x) m = Mul(n, e) y = Mul(m, f)",
        {"e": number(3e-5), "f": number(1000)},
        x=floats(1, 2, 3),
    ),
    half_case(
        "small_factors_of_columns",
        "m = Mul(x, e) y = Mul(m, f)",
        {"e": floats(3e-5, 1e-4, 2e-5), "f": number(1000)},
        x=floats(1, 2, 3),
    ),
    half_case("small_slope", "y = PRelu(x, e)", {"e": number(3e-5)}, x=floats(-100, -2000, -30)),
    half_case(
        "weights_of_16_bits",
        "w = DequantizeLinear(q, s) y = MatMul(x, w)",
        {"q": np.array([[-32768], [32767], [1], [20000]], np.int16), "s": number(3e-5)},
        x=_ROWS,
    ),
    half_case(
        "weights_of_small_scales",
        "w = DequantizeLinear<axis = 1>(q, s, z) y = MatMul(x, w)",
        {"q": _BYTES, "s": np.array([6e-5, 3e-5, 1e-6, 2e-4], np.float32), "z": np.zeros(4, np.int8)},
        x=_ROWS * 100,
    ),
    half_case(
        "weights_of_channels",
        "w = DequantizeLinear<axis = 1>(q, s) y = MatMul(x, w)",
        {"q": _BYTES, "s": np.array([6e-2, 3e-2, 1e-2, 2e-1], np.float32)},
        x=_ROWS,
    ),
    half_case(
        "levels_of_16_bits",
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Mul(d, h)",
        {"s": number(6 / 65535), "z": np.array(0, np.uint16), "h": number(0.5)},
        x=floats(0, 1, 5.9985, 6, 7),
    ),
    half_case(
        "signed_levels_of_16_bits",
        """q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) m = Mul(d, h)
        r = QuantizeLinear(m, s, z) y = DequantizeLinear(r, s, z)""",
        {"s": number(6e-5), "z": np.array(-5, np.int16), "h": number(0.5)},
        x=floats(-2, -1, 0.3, 1.9, 7),
    ),
    half_case(
        "levels_of_a_small_scale",
        "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)",
        {"s": number(3e-5), "z": np.array(0, np.int8)},
        x=floats(-3e-3, 1e-3, 2e-3, 3.5e-3),
    ),
    half_case(
        "levels_joined",
        """q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) c = Concat<axis = 1>(d, d)
        r = QuantizeLinear(c, t, z) y = DequantizeLinear(r, t, z)""",
        {"s": number(0.05), "t": number(0.07), "z": np.array(128, np.uint8)},
        x=floats(-3, 1, 0.12),
    ),
)
