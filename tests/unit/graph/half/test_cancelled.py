"""Which differences compute in fp32, and which may stay in fp16."""

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from support.graphs import model_of
from triune.graph.half import fit_half
from triune.graph.normalize import normalize
from triune.graph.weight_files import WeightFile


def _wide(model: ModelProto) -> set[str]:
    with WeightFile() as file:
        fitted = fit_half(normalize(model), file)
        return {node.op_type for node in fitted.model.graph.node if node.output[0] in fitted.wide}


@pytest.mark.parametrize(
    "text",
    [
        # An image from 0 to 1, as ImageNet's networks take it, and one from 0 to 255.
        """g (float[1,3,8,8] x) => (float[1,3,8,8] y)
          <float[3,1,1] m = {0.485, 0.456, 0.406}, float[3,1,1] s = {0.229, 0.224, 0.225}> {
            d = Sub (x, m) q = Div (d, s) y = Tanh (q) }""",
        """g (float[1,3,8,8] x) => (float[1,3,8,8] y) <float m = {127.5}, float one = {1}> {
            q = Div (x, m) d = Sub (q, one) y = Tanh (d) }""",
        """g (float[1,3,8,8] x) => (float[1,3,8,8] y) <float[3,1,1] m = {103.9, 116.8, 123.7}> {
            d = Sub (x, m) y = Tanh (d) }""",
        # Degrees Celsius as Fahrenheit.
        """g (float[8] x) => (float[8] y) <float s = {0.018}, float m = {0.32}> {
            p = Mul (x, s) a = Add (p, m) y = Tanh (a) }""",
        # What layers compute is rounded anyway.
        """g (float[8,2] x) => (float[8,2] y) <float[2,2] w = {1, 2, 3, 4}, float m = {500}, float s = {100}> {
            h = MatMul (x, w) d = Sub (h, m) q = Mul (d, s) y = Tanh (q) }""",
    ],
)
def test_ordinary_differences_stay_in_fp16(text: str) -> None:
    assert not _wide(model_of(text)) & {"Sub", "Add", "Mul", "Div", "Tanh"}


def test_a_mask_of_floats_is_no_difference() -> None:
    text = """g (float[1,4] x, float[4,4] s) => (float[4,4] y) <float one = {1}, float low = {-10000}> {
        d = Sub (one, x) m = Mul (d, low) a = Add (s, m) y = Softmax (a) }"""
    with WeightFile() as file:
        (note,) = fit_half(normalize(model_of(text)), file).notes
    assert "its masks are beyond fp16" in note
    assert "subtracts" not in note


def test_what_follows_the_scaled_difference_stays_in_fp16() -> None:
    text = """g (float[8] x) => (float[8] y) <float m = {2}, float s = {1000}, float h = {0.5}> {
        l = Log (x) d = Sub (l, m) q = Mul (d, s) t = Tanh (q) y = Mul (t, h) }"""
    assert _wide(model_of(text)) == {"Log", "Sub", "Mul"}
    with WeightFile() as file:
        assert "y" not in fit_half(normalize(model_of(text)), file).wide


@pytest.mark.parametrize("nodes", ["q = Div (d, s)", "t = Transpose <perm = [0, 2, 3, 1]> (d) q = Div (t, s)"])
@pytest.mark.parametrize("size", [16, 96])
def test_a_mean_image_of_any_size_is_subtracted_in_fp32(size: int, nodes: str) -> None:
    """Kelvin, of which the mean is 144 deviations from 0."""
    model = model_of(
        f"""g (float[1,3,{size},{size}] x) => (float[1,A,B,C] y) <float s = {{2}}> {{
            d = Sub (x, m) {nodes} y = Tanh (q) }}"""
    )
    mean = 288 + np.random.default_rng(0).normal(0, 2, (1, 3, size, size))
    model.graph.initializer.append(numpy_helper.from_array(mean.astype(np.float32), "m"))
    assert "Sub" in _wide(model)
