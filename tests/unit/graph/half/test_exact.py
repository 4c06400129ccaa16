"""Which nodes compute in fp32 because fp16 has too few bits for them."""

import numpy as np
import onnx
import onnxruntime
import pytest

import triune
from support.graphs import model_of


@pytest.mark.parametrize("suffix", ["mlpackage", "aimodel"])
@pytest.mark.parametrize(
    ("step", "limit", "count"), [(0.1, 1.0, 10), (0.1, 0.7, 7), (0.3, 0.6, 2), (1.0, 2049.0, 2049)]
)
def test_a_range_of_floats_has_the_length_that_fp32_gives(tmp_path, suffix, step, limit, count):
    # In fp16, 0.1 is 0.09998: a range from 0 to 1 by 0.1 would have 11 elements, and 2049 is 2048.
    source = model_of(
        f"g (float[1] n) => (float[k] y) <float first = {{0}}, float step = {{{step}}}> {{"
        "last = Squeeze (n) y = Range (first, last, step) }"
    )
    feed = {"n": np.array([limit], np.float32)}
    session = onnxruntime.InferenceSession(source.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, feed)[0].shape == (count,)
    onnx.save(source, tmp_path / "range.onnx")
    path = tmp_path / f"range.{suffix}"
    triune.convert(tmp_path / "range.onnx", path, precision="fp16")
    with triune.load(path) as model:
        found = model.run(feed)["y"]
    assert found.shape == (count,)
    np.testing.assert_allclose(found, np.arange(count) * step, atol=1e-3)
