"""MaxRoiPool in core operators is ONNX Runtime's; ONNX's reference evaluator has none."""

import numpy as np
import onnxruntime as ort
import pytest

from support.graphs import model_of, ops_of
from triune.graph.check import evaluate
from triune.graph.normalize import foreign_ops, normalize

RNG = np.random.default_rng(7)

CHOSEN = [
    # Whole, part, across each border, outside, of negative extent, and corners between two pixels.
    [0, 0, 0, 15, 13],
    [1, 2, 3, 4, 3],
    [0, -9, -7, 4, 4],
    [1, 5, 5, 20, 20],
    [0, 19, 19, 32, 32],
    [1, 8, 6, 2, 2],
    [0, 1, 3, 5, 7],
    [1, -1, -3, 3, 5],
]


def text_of(bins: str, scale: float, kind: str = "float") -> str:
    return f"""agraph ({kind}[2,3,7,8] x, {kind}[R,5] regions) => ({kind}[R,3,?,?] y) {{
      y = MaxRoiPool <pooled_shape = [{bins}], spatial_scale = {scale}> (x, regions) }}"""


@pytest.mark.parametrize("scale", [0.5, 1.0, 0.0625])
@pytest.mark.parametrize("bins", ["1,1", "2,3", "7,7"])
def test_regions_in_bins(bins: str, scale: float) -> None:
    # ONNX Runtime has no newer MaxRoiPool.
    model = model_of(text_of(bins, scale), opset=21)
    random = np.concatenate([RNG.integers(0, 2, (40, 1)), RNG.uniform(-4, 20, (40, 4)) / scale / 2], 1)
    regions = np.concatenate([np.array(CHOSEN), random]).astype(np.float32)
    x = RNG.standard_normal((2, 3, 7, 8)).astype(np.float32)
    normal = normalize(model)
    assert foreign_ops(normal) == []
    expected = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x, "regions": regions})
    np.testing.assert_array_equal(evaluate(normal, {"x": x, "regions": regions})[0], expected[0])


def test_half_a_pixel_is_rounded_away_from_zero_and_fp16_regions_are_whole() -> None:
    x = np.arange(336, dtype=np.float16).reshape(2, 3, 7, 8)
    regions = np.array([[0, 0.5, 2.5, 3.4990234, 4.5]], np.float16)
    (y,) = evaluate(normalize(model_of(text_of("1,1", 1.0, "float16"))), {"x": x, "regions": regions})
    assert y.dtype == np.float16
    # Rows 3 to 5, columns 1 to 3.
    np.testing.assert_array_equal(y.reshape(-1), x[0, :, 5, 3])


def test_an_image_of_a_free_size_stays() -> None:
    text = """agraph (float[1,3,H,8] x, float[R,5] regions) => (float[R,3,2,2] y) {
      y = MaxRoiPool <pooled_shape = [2,2]> (x, regions) }"""
    assert ops_of(normalize(model_of(text))) == ["MaxRoiPool"]
