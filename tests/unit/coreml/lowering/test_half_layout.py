"""Transformers as ML Programs of fp16 in the Neural Engine's layout, by both executors against ONNX Runtime in fp32."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from support.half_layout import MADE, MASKS, SCALES, Form, Norm, activations, assert_close, attention, masked, normed
from support.lowered import plain_answers
from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering import LowerOptions, lower
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import read_package
from triune.graph.conversion.options import Layout, Precision
from triune.graph.conversion.shapes import InputShape, Range

_NORMS: list[Norm] = ["divided", "inverted", "power", "centred", "layer"]


def _compare(
    model: ModelProto,
    folder: Path,
    *calls: Mapping[str, Any],
    precision: Precision = Precision.FP16,
    keep: str = "",
    judge: ModelProto | None = None,
) -> None:
    is_free = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    shapes = {name: InputShape(((Range(1, 4), *array.shape[1:]),)) for name, array in calls[0].items() if is_free}
    kept = frozenset([keep] if keep else [])
    options = LowerOptions(precision=precision, keep_fp32=kept, layout=Layout.ANE, shapes=shapes)
    lowered = lower(model, folder / "m.mlpackage", options)
    assert lowered.layout is not None
    assert lowered.layout.num_layers
    assert lowered.layout.left == []
    for executor in (OnnxExecutor, Interpreter):
        loaded = executor(read_package(lowered.path))
        for feeds in calls:
            given = {lowered.inputs[name]: array for name, array in feeds.items()}
            results, _ = loaded.run(given, {})
            right = plain_answers(judge or model, _wide(feeds))[0]
            assert_close(results[lowered.outputs["y"]], right, is_finite=precision is not Precision.FP32)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("batch", [2, "b"])
@pytest.mark.parametrize("norm", _NORMS)
def test_norms_hold_whatever_fp16_does(norm: Norm, batch: int | str, tmp_path: Path) -> None:
    calls = [{"x": activations(scale, kind=kind)} for scale in SCALES for kind in ("even", "one", "zero")]
    _compare(normed(norm, batch), tmp_path, *calls)


@pytest.mark.parametrize("epsilon", [1e-12, 1e-6, 0.1])
def test_norms_have_their_epsilon(epsilon: float, tmp_path: Path) -> None:
    _compare(normed("divided", 2, epsilon), tmp_path, *({"x": activations(scale)} for scale in (1e-3, 0.1, 5000.0)))


@pytest.mark.parametrize(("norm", "keep"), [("divided", "Pow"), ("power", "Pow"), ("inverted", "Reciprocal")])
def test_what_the_user_keeps_in_fp32_of_a_norm_is_still_there(norm: Norm, keep: str, tmp_path: Path) -> None:
    calls = [{"x": activations(scale)} for scale in SCALES]
    _compare(normed(norm, 2), tmp_path, *calls, precision=Precision.MIXED, keep=keep)


@pytest.mark.parametrize("norm", ["divided", "layer"])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_norms_of_models_in_fp16_hold_in_every_precision(norm: Norm, precision: Precision, tmp_path: Path) -> None:
    calls = [{"x": activations(scale).astype(np.float16)} for scale in SCALES[1:]]
    _compare(normed(norm, 2, is_half=True), tmp_path, *calls, precision=precision, judge=normed(norm, 2))


@pytest.mark.parametrize("batch", [2, "b"])
@pytest.mark.parametrize("form", ["rows", "whole"])
def test_masks_that_are_given_hold_rows_that_are_masked_whole(form: Form, batch: int | str, tmp_path: Path) -> None:
    _compare(attention(form, batch), tmp_path, *(masked(form, value) for value in MASKS))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("form", ["rows", "whole"])
def test_masks_that_are_made_hold_rows_that_are_masked_whole(
    form: Form, made: str, precision: Precision, tmp_path: Path
) -> None:
    calls = [masked(form, 0.0, kept=1.0), masked(form, 1.0, kept=1.0), masked(form, 1.0)]
    _compare(attention(form, 2, MADE[made]), tmp_path, *calls, precision=precision)


def test_a_small_mask_is_added_as_it_is(tmp_path: Path) -> None:
    _compare(attention("whole", 2), tmp_path, masked("whole", -3.0), masked("whole", 0.0))


def _wide(feeds: Mapping[str, Any]) -> dict[str, Any]:
    return {name: array.astype(np.float32) for name, array in feeds.items()}
