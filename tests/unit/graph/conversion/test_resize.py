"""Which elements are nearest: those that ONNX Runtime takes, also where a scale is rounded."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from support.graphs import model_of
from triune.graph.conversion.resize import changed_of, picked_of, places_of

SCALES = (1 / 3, 0.3, 0.5, 0.6, 0.7, 0.9, 1.7, 2.3, 3.0)
COORDINATES = ("half_pixel", "asymmetric", "pytorch_half_pixel")


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_the_nearest_elements_are_those_of_onnx_runtime(coordinates: str, rounding: str) -> None:
    attributes = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    for scale in SCALES:
        for size in (3, 7, 9, 10):
            expected = _by_onnx_runtime(size, scale, attributes)
            [axis] = changed_of(attributes, [0], [size], np.array([scale], np.float32), None, None)
            found = np.clip(picked_of(attributes, places_of(attributes, axis)), 0, size - 1)
            np.testing.assert_array_equal(found, expected, err_msg=f"{size} elements by {scale}")


def _by_onnx_runtime(size: int, scale: float, attributes: dict[str, str]) -> Any:
    words = ", ".join(f'{name} = "{value}"' for name, value in attributes.items())
    text = f"""agraph (float[1,1,1,{size}] x) => (float[a,b,c,d] y) <float[4] s = {{1, 1, 1, {np.float32(scale):.9g}}}>
        {{ y = Resize <mode = "nearest", {words}> (x, , s) }}"""
    session: Any = ort.InferenceSession(model_of(text).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)})[0].reshape(-1)
