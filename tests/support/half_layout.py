"""Parts of transformers in the Neural Engine's layout, with intermediate results that fp16 cannot represent."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from support.graphs import model_of

WIDTH = 64
STEPS = 5
SCALES = (1e-3, 1.0, 300.0, 5000.0, 30000.0)
"""How large what is normalized is."""

MASKS = (-10_000.0, -1e9, float(np.finfo(np.float32).min), -np.inf)
"""What masks a score."""

Form = Literal["rows", "whole"]
"""How a mask of numbers is given: a row each of the batch, or all of it."""

_LOWEST = float(np.finfo(np.float32).min)

MADE = {
    "inverted": "b = Sub (number, kept) m = Mul (b, lowest) a = Add (d, m)",
    "inverted_and_bias": "b = Sub (number, kept) c = Mul (b, lowest) m = Add (bias, c) a = Add (s, m)",
    "filled": "a = Where (w, d, lowest)",
    "filled_with_infinity": "a = Where (w, d, infinity)",
    "chosen": "m = Where (w, zero, billion) a = Add (d, m)",
    "small": "m = Where (w, zero, thousand) a = Add (d, m)",
    "causal_of_infinity": "b = Sub (number, kept) c = Mul (b, lowest) m = Add (causal, c) a = Add (d, m)",
    "filled_causal_of_infinity": """b = Sub (number, kept) m = Mul (b, lowest) e = Where (seen, d, infinity)
        a = Add (e, m)""",
}
"""How the scores `d` or, not scaled yet, `s` become `a`, masked by `kept`, which is 1 where a key is to be kept."""

Norm = Literal["divided", "inverted", "power", "centred", "layer"]

_HEADS = 2
_TURNED = "[0, 2, 1, 3]"
_NORMS: dict[Norm, str] = {
    "divided": """s = Pow (h, two) v = ReduceMean <keepdims = 1> (s, last) t = Add (v, e) r = Sqrt (t)
        d = Div (h, r) n = Mul (d, g)""",
    "inverted": """s = Mul (h, h) v = ReduceMean <keepdims = 1> (s, last) t = Add (v, e) r = Sqrt (t) i = Reciprocal (r)
        d = Mul (h, i) n = Mul (d, g)""",
    "power": """s = Pow (h, two) v = ReduceMean <keepdims = 1> (s, last) t = Add (e, v) i = Pow (t, minus_half)
        d = Mul (i, h) n = Mul (d, g)""",
    "centred": """m = ReduceMean <keepdims = 1> (h, last) c = Sub (h, m) s = Pow (c, two)
        v = ReduceMean <keepdims = 1> (s, last) t = Add (v, e) r = Sqrt (t) d = Div (c, r) f = Mul (d, g)
        n = Add (f, b)""",
    "layer": "n = LayerNormalization <axis = -1, epsilon = 1e-5> (h, g, b)",
}


def normed(norm: Norm, batch: int | str, epsilon: float = 1e-5, *, is_half: bool = False) -> ModelProto:
    """A model of an identity layer, a norm and a layer. `x` and `y` are (batch, STEPS, WIDTH), in fp16 or fp32."""
    size = f"{batch}, {STEPS}, {WIDTH}"
    kind = "float16" if is_half else "float"
    model = model_of(
        f"""agraph ({kind}[{size}] x) => ({kind}[{size}] y) {{
            h = MatMul (x, one) {_NORMS[norm]} o = MatMul (n, w) y = Relu (o)
        }}""",
        opset=18,
    )
    rng = np.random.default_rng(3)
    floats = {
        "one": np.eye(WIDTH),
        "w": rng.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5,
        "g": 1 + 0.1 * rng.standard_normal(WIDTH),
        "b": 0.1 * rng.standard_normal(WIDTH),
        "e": np.array(epsilon),
        "two": np.array(2),
        "minus_half": np.array(-0.5),
    }
    return _with(model, floats, np.float16 if is_half else np.float32, last=np.array([-1]))


def activations(scale: float, batch: int = 2, kind: Literal["even", "one", "zero"] = "even") -> NDArray[np.float32]:
    """Activations of one kind: uniform ones up to `scale`; or far smaller ones except in one channel; or ones that are
    0 at one step.
    """
    x = np.random.default_rng(1).uniform(-1, 1, (batch, STEPS, WIDTH))
    if kind == "one":
        x *= 1e-3
        x[..., 7] = 1
    if kind == "zero":
        x[:, 2] = 0
    return (x * scale).astype(np.float32)


def attention(form: Form, batch: int | str, made: str = "a = Add (d, kept)") -> ModelProto:
    """An attention of two heads. `mask`, (batch, STEPS) or (batch, 1, STEPS, STEPS), is added to its scores, or masks
    them in another way of `MADE`.
    """
    size = f"{batch}, {STEPS}, {WIDTH}"
    mask = f"{batch}, {STEPS}" if form == "rows" else f"{batch}, 1, {STEPS}, {STEPS}"
    given = "kept = Unsqueeze (mask, middle)" if form == "rows" else "kept = Identity (mask)"
    given += " w = Cast <to = 9> (kept)" if "w" in made else ""
    heads = " ".join(
        f"""p{each} = MatMul (x, w{each}) r{each} = Reshape (p{each}, apart)
        {each} = Transpose <perm = {_TURNED}> (r{each})"""
        for each in "qkv"
    )
    model = model_of(
        f"""agraph (float[{size}] x, float[{mask}] mask) => (float[{size}] y) {{
            {given} {heads} kt = Transpose <perm = [0, 1, 3, 2]> (k) s = MatMul (q, kt) d = Mul (s, root) {made}
            p = Softmax <axis = -1> (a) o = MatMul (p, v) t = Transpose <perm = {_TURNED}> (o)
            j = Reshape (t, joined) y = MatMul (j, wo)
        }}""",
        opset=18,
    )
    rng = np.random.default_rng(5)
    floats = {f"w{name}": rng.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5 for name in "qkvo"}
    floats["root"] = np.array((WIDTH / _HEADS) ** -0.5)
    seen = np.tril(np.ones((STEPS, STEPS), np.bool_))
    floats |= {"number": np.array(1), "zero": np.array(0), "lowest": np.array(_LOWEST), "billion": np.array(-1e9)}
    floats |= {"thousand": np.array(-1000), "infinity": np.array(-np.inf), "causal": np.where(seen, 0, -np.inf)}
    floats["bias"] = rng.standard_normal((1, _HEADS, STEPS, STEPS))
    model.graph.initializer.append(numpy_helper.from_array(seen, "seen"))
    ints = {"apart": [0, 0, _HEADS, WIDTH // _HEADS], "joined": [0, 0, WIDTH], "middle": [1, 2]}
    return _with(model, floats, np.float32, **{name: np.array(each) for name, each in ints.items()})


def masked(form: Form, value: float, batch: int = 2, kept: float = 0.0) -> dict[str, NDArray[np.float32]]:
    """Make inputs of `attention`. In the first sequence of the batch the last two keys are masked, in the last sequence
    all keys.

    With a mask (batch, 1, STEPS, STEPS), all keys are masked for step 2 of the first sequence too. Elements that are
    not masked are `kept`.
    """
    x = np.random.default_rng(2).standard_normal((batch, STEPS, WIDTH)).astype(np.float32)
    shape: Sequence[int] = (batch, STEPS) if form == "rows" else (batch, 1, STEPS, STEPS)
    mask = np.full(shape, kept, np.float32)
    mask[0, ..., -2:] = value
    mask[-1] = value
    if form == "whole":
        mask[0, :, 2] = value
    return {"x": x, "mask": mask}


def assert_close(actual: NDArray[Any], right: NDArray[Any], part: float = 1e-2, *, is_finite: bool = True) -> None:
    """Assert that the answers differ by at most `part` of the largest answer. Where fp32 has NaN, any number is
    accepted; with `is_finite`, NaN is not.
    """
    assert np.isfinite(actual if is_finite else actual[~np.isnan(right)]).all()
    error = np.nanmax(np.abs(np.where(np.isnan(right), 0, actual - right)))
    assert error <= part * np.nanmax(np.abs(right)), error


def _with(
    model: ModelProto, floats: dict[str, NDArray[Any]], dtype: type[np.floating[Any]], **ints: NDArray[Any]
) -> ModelProto:
    for name, array in floats.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, dtype), name))
    for name, array in ints.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, np.int64), name))
    return model
