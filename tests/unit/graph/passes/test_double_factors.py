"""Constant factors of DOUBLE, between which numbers exceed fp32."""

from pathlib import Path

import numpy as np
import pytest

from support.graphs import model_of
from support.lowered import plain_answers
from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering import lower
from triune.coreml.package import read_package
from triune.graph.conversion.options import ConversionOptions
from triune.graph.conversion.prepare import prepare, silent
from triune.graph.weight_files import WeightFile

FIXED_POINT = """g (float[4] x) => (float[4] y) {
wide = Cast <to = 11> (x) mantissa = Constant <value = double {1083677310.0}> ()
two = Constant <value = double {2.0}> () exponent = Constant <value = double {EXPONENT}> ()
power = Pow (two, exponent) product = Mul (wide, mantissa) scaled = Div (product, power)
y = Cast <to = 1> (scaled) }"""
"""I-BERT's products of fixed point, as transformers exports them."""


@pytest.mark.parametrize("exponent", [123.0, 134.0])
def test_products_of_fixed_point_do_not_exceed_fp32(tmp_path: Path, exponent: float) -> None:
    """The product is up to 3.5e41, and 2**134 itself is beyond fp32."""
    model = model_of(FIXED_POINT.replace("EXPONENT", str(exponent)))
    x = np.float32([3.3e32, -1.7e30, 0, 1])
    expected = plain_answers(model, {"x": x})[0]
    lowered = lower(model, tmp_path / "m.mlpackage")
    results, _ = Interpreter(read_package(lowered.path)).run({"x": x}, {})
    np.testing.assert_allclose(results["y"], expected, rtol=1e-6)
    assert abs(expected[0]) > 10


@pytest.mark.parametrize(
    ("nodes", "num_left"),
    [
        ("b = Mul (large, a) c = Mul (b, large) d = Div (c, larger)", 1),
        ("b = Div (a, large) c = Div (b, large) d = Mul (c, larger)", 1),
        # A constant by which nothing is multiplied, a quotient by a value, and fp32, stay.
        ("b = Div (large, a) c = Mul (b, large) d = Div (c, larger)", 2),
        ("b = Mul (a, large) e = Div (large, b) c = Mul (e, a) d = Div (c, larger)", 4),
        ("b = Mul (large, a) c = Cast <to = 11> (b) f = Cast <to = 1> (c) d = Cast <to = 11> (f)", 1),
    ],
)
def test_constants_are_joined_where_only_the_next_product_reads_the_result(nodes: str, num_left: int) -> None:
    text = f"""g (float[2] x) => (float[2] y) {{ a = Cast <to = 11> (x)
        large = Constant <value = double {{1e15}}> () larger = Constant <value = double[1] {{1e30}}> ()
        {nodes} y = Cast <to = 1> (d) }}"""
    model = model_of(text)
    with WeightFile() as file:
        prepared = prepare(model, ConversionOptions(), None, silent, file).model
    assert sum(node.op_type in ("Mul", "Div") for node in prepared.graph.node) == num_left
    x = np.float32([3.5, -2])
    np.testing.assert_allclose(plain_answers(prepared, {"x": x})[0], plain_answers(model, {"x": x})[0], rtol=1e-6)
