"""A conversion to fp16 says up to which size of inputs it is right, and from which one its answers are lost."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import triune
from triune.core.datatypes import Array
from triune.coreai.model import Model
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import read_package
from triune.graph.verify import Verdict

LAYER = """g (float[4,64] x) => (float[4,32] y) { m=MatMul(x,w) y=LayerNormalization(m,scale) }"""
WITHIN = """g (float[4,64] x) => (float[4,32] y) <float low={-6}, float high={6}> {
    c=Clip(x,low,high) m=MatMul(c,w) y=LayerNormalization(m,scale) }"""
PICTURE = """g (float[1,3,4,4] x) => (float[1,3,4,4] y) { y=MatMul(x,large) }"""


def saved(path: Path, text: str) -> Path:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]>\n{text}')
    weights = np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32) / 8
    tensors = {"w": weights, "scale": np.ones(32, np.float32), "large": np.eye(4, dtype=np.float32) * 20}
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in tensors.items() if name in text
    )
    onnx.save(model, path)
    return path


def answer(path: Path, x: Array) -> Array:
    if path.suffix == ".mlpackage":
        return OnnxExecutor(read_package(path)).run({"x": x}, {})[0]["y"]
    with Model(path, executor="interpreter") as program:
        return program.predict({"x": x})["y"]


def expected(x: Array) -> Array:
    weights = np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32) / 8
    sums = (x.astype(np.float64) @ weights).astype(np.float64)
    centered = sums - sums.mean(-1, keepdims=True)
    return np.asarray(centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5))


@pytest.mark.parametrize("target", ["m.mlpackage", "m.aimodel"])
def test_a_note_says_from_which_size_of_inputs_answers_are_lost(tmp_path: Path, target: str) -> None:
    source, path = saved(tmp_path / "m.onnx", LAYER), tmp_path / target
    done = triune.convert(source, path, precision="fp16", verify=True)
    assert done.verdict is Verdict.RIGHT
    (note,) = (each for each in done.notes if "up to" in each)
    found = re.search(
        r"right for generated inputs up to (\d+); for (?:positive )?numbers up to (\d+) output 'y' is", note
    )
    assert found is not None, note
    right, lost = map(float, found.groups())
    assert 1000 < right < lost == min(2 * right, 60_000)
    x = np.random.default_rng(2).uniform(-1, 1, (4, 64)).astype(np.float32)
    np.testing.assert_allclose(answer(path, x * right), expected(x * right), atol=0.05)
    assert not np.isfinite(answer(path, x * 60_000)).all()


@pytest.mark.parametrize("target", ["m.mlpackage", "m.aimodel"])
def test_large_inputs_that_are_given_are_right_in_fp16(tmp_path: Path, target: str) -> None:
    """As the note says: what loses them computes in fp32."""
    source, path = saved(tmp_path / "m.onnx", LAYER), tmp_path / target
    x = np.random.default_rng(2).uniform(-60_000, 60_000, (4, 64)).astype(np.float32)
    done = triune.convert(source, path, precision="fp16", verify=True, inputs={"x": x})
    assert done.verdict is Verdict.RIGHT
    assert not any("up to" in note for note in done.notes)
    np.testing.assert_allclose(answer(path, x), expected(x), atol=0.01)


@pytest.mark.parametrize(
    ("text", "target", "options"),
    [
        # Numbers are within 6 whatever the inputs are.
        (WITHIN, "m.mlpackage", {}),
        # A picture has bytes: that 20 times larger numbers are beyond fp16 is nothing to tell.
        (PICTURE, "m.aimodel", {"images": {"x": "rgb24"}}),
    ],
)
def test_nothing_is_said_of_inputs_that_do_not_occur(tmp_path: Path, text: str, target: str, options: Any) -> None:
    source = saved(tmp_path / "m.onnx", text)
    done = triune.convert(source, tmp_path / target, precision="fp16", verify=True, **options)
    assert done.verdict is Verdict.RIGHT
    assert not any("up to" in note for note in done.notes)


def test_what_a_picture_does_not_have_is_said_of_floats(tmp_path: Path) -> None:
    source = saved(tmp_path / "m.onnx", PICTURE)
    (note,) = triune.convert(source, tmp_path / "m.aimodel", precision="fp16", verify=True).notes
    assert "right for generated inputs up to 2048; for numbers up to 4096 output 'y' is infinite" in note
