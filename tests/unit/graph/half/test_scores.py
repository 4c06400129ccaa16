"""Products scaled before rather than after: the same answers, whatever stands between the product and its scale."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from support.graphs import ops_of
from support.half_cases.case import half_case, noise, number
from support.lowered import plain_answers
from triune.graph.half.scores import ScaleBefore
from triune.graph.passes.infer import Infer
from triune.graph.passes.tidy import Tidy
from triune.graph.weight_files import WeightFile

_ROWS, _IMAGE = noise(2, 3, 8), noise(2, 4, 6, 6)
_OF_ROWS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "weights": ("p = MatMul (x, w)", {"w": noise(8, 4, seed=1)}),
    "two": ("p = MatMul (x, z)", {}),
    "weights_of_batches": ("p = MatMul (x, w)", {"w": noise(2, 8, 4, seed=1)}),
    "weights_on_the_left": ("t = Transpose <perm = [0, 2, 1]> (x) p = MatMul (w, t)", {"w": noise(4, 8, seed=1)}),
}
_OF_TABLES = {
    "gemm": ("p = Gemm <alpha = 0.5, beta = 2.0> (x, w, b)", {"w": noise(8, 4, seed=1), "b": noise(4, seed=2)}),
    "gemm_turned": ("p = Gemm <transB = 1> (x, w, b)", {"w": noise(4, 8, seed=1), "b": noise(3, 4, seed=2)}),
}
_OF_IMAGES = {
    "conv": ("p = Conv <group = 2> (x, w, b)", {"w": noise(4, 2, 3, 3, seed=1), "b": noise(4, seed=2)}),
    "transposed": ("p = ConvTranspose <group = 2> (x, w)", {"w": noise(4, 2, 3, 3, seed=1)}),
    "transposed_whole": ("p = ConvTranspose (x, w, b)", {"w": noise(4, 4, 2, 2, seed=1), "b": noise(4, seed=2)}),
}
_BETWEEN = {
    "nothing": "r = Identity (p)",
    "bends": "n = Neg (p) r = LeakyRelu (n)",
    "sums": "a = Add (p, o) n = Sub (o, a) r = Relu (n)",
    "choices": "c = Greater (o, h) r = Where (c, p, o)",
    "views": "n = Transpose (p) r = Squeeze (n)",
}
_SCALES = {
    "far": "y = Mul (r, far)",
    "farther": "y = Mul (farther, r)",
    "halved": "y = Div (r, two)",
    "channels": "y = Mul (r, row)",
    "divided_channels": "y = Div (r, rows)",
    "two_readers": "f = Mul (r, far) g = Mul (r, farther) y = Sub (f, g)",
}


def _model(product: str, constants: Mapping[str, Any], between: str, scale: str, x: Any) -> tuple[ModelProto, Any]:
    is_of_images = x.ndim == 4
    row = np.array([1e-3, -2e-4, 5e-3, 1e-7], np.float32).reshape(4, *([1, 1] if is_of_images else []))
    if product.startswith("t ="):
        row = row[:3]
    known = {
        "far": number(1e-3),
        "farther": number(-3e-6),
        "two": number(2),
        "row": row,
        "rows": 1 / row,
        "h": number(0),
    }
    feeds = {"x": x} | ({"z": noise(2, 8, 4, seed=4)} if "z)" in product else {})
    nodes = f"{product} {_BETWEEN[between]} {_SCALES[scale]}"
    case = half_case("m", nodes, {**known, **constants, "o": row * 300}, **feeds)
    return Infer()(case.model), feeds


@pytest.mark.parametrize("name", [*_OF_ROWS, *_OF_TABLES, *_OF_IMAGES])
def test_answers_stay(name: str) -> None:
    kinds = {**dict.fromkeys(_OF_ROWS, _ROWS), **dict.fromkeys(_OF_TABLES, noise(3, 8))}
    product, constants = {**_OF_ROWS, **_OF_TABLES, **_OF_IMAGES}[name]
    num_changed = 0
    for between, scale in itertools.product(_BETWEEN, _SCALES):
        if between == "views" and "channels" in scale:
            continue
        model, feeds = _model(product, constants, between, scale, kinds.get(name, _IMAGE))
        before, expected = ops_of(model), plain_answers(model, feeds)
        with WeightFile() as file:
            model = Tidy()(ScaleBefore(file)(model))
        num_changed += ops_of(model) != before
        for right, found in zip(expected, plain_answers(model, feeds), strict=True):
            np.testing.assert_allclose(
                found, right, rtol=2e-4, atol=1e-5 * np.abs(right).max(), err_msg=f"{between} {scale}"
            )
    assert num_changed > len(_SCALES)
