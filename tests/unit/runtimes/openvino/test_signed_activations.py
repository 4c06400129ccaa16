"""Activations of uint8 with the zero point 128 are computed as int8, and the numbers stay the same."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from support.lowered import model_of

pytest.importorskip("openvino")

from triune.runtimes.openvino.library import library
from triune.runtimes.openvino.signed_activations import make_activations_signed

SCALE = 0.5


def quantized(*zero_points: int, reads_codes: bool = False) -> Any:
    """The OpenVINO model of an input that is quantized with each of these zero points, one after the other."""
    nodes, constants, last = [], {"scale": np.array(SCALE, np.float32)}, "x"
    for place, zero_point in enumerate(zero_points):
        constants[f"zero{place}"] = np.array(zero_point, np.uint8)
        nodes += [
            helper.make_node("QuantizeLinear", [last, "scale", f"zero{place}"], [f"codes{place}"]),
            helper.make_node("DequantizeLinear", [f"codes{place}", "scale", f"zero{place}"], [f"y{place}"]),
        ]
        last = f"y{place}"
    outputs: list[tuple[str, int, list[int]]] = [(last, TensorProto.FLOAT, [1000])]
    if reads_codes:
        outputs.append(("codes0", TensorProto.UINT8, [1000]))
    model = model_of(nodes, [("x", TensorProto.FLOAT, [1000])], outputs, **constants)
    return library.Core().read_model(model.SerializeToString())


def test_every_code_stays() -> None:
    model = quantized(128)
    assert make_activations_signed(model) == 1
    x = np.linspace(-80, 80, 1000, dtype=np.float32)
    (found,) = library.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x).values()
    expected = np.clip(np.rint(x / SCALE), -128, 127) * SCALE
    # A value in the middle between two codes may become either.
    is_middle = np.isclose(np.abs(x / SCALE) % 1, 0.5, atol=1e-4)
    assert set(expected) == set(np.arange(-128, 128) * SCALE)
    assert np.array_equal(found[~is_middle], expected[~is_middle])
    assert np.abs(found - expected).max() <= SCALE


def test_other_zero_points_stay() -> None:
    assert make_activations_signed(quantized(127)) == 0
    assert make_activations_signed(quantized(0)) == 0
    assert make_activations_signed(quantized(0, 128, 127)) == 1


def test_codes_that_are_an_output_stay() -> None:
    assert make_activations_signed(quantized(128, reads_codes=True)) == 0


def test_convolutions_compute_the_same_with_activations_of_int8() -> None:
    rng = np.random.default_rng(5)
    weight = rng.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale"], ["w"]),
        helper.make_node("Conv", ["a", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    whole = model_of(
        nodes,
        [("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [("y", TensorProto.FLOAT, [1, 8, 16, 16])],
        scale=np.float32(0.02),
        zero=np.uint8(128),
        weight=weight,
        weight_scale=np.float32(0.01),
    )
    x = rng.uniform(-3, 3, (1, 3, 16, 16)).astype(np.float32)
    answers, types = [], []
    for is_signed in (False, True):
        model = library.Core().read_model(whole.SerializeToString())
        assert not is_signed or make_activations_signed(model) == 1
        compiled = library.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        (answer,) = compiled(x).values()
        answers.append(answer)
        operations = compiled.get_runtime_model().get_ordered_ops()
        types.append({str(each.get_rt_info()["outputPrecisions"].get()) for each in operations})
    # The padding is 0 in both forms.
    assert np.abs(answers[0] - answers[1]).max() <= 1e-4 * np.abs(answers[0]).max()
    assert "u8" in types[0]
    assert "u8" not in types[1]
