"""Transformers as assets of fp16 in the Neural Engine's layout, by Apple's interpreter against ONNX Runtime in fp32."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from support.apple_interpreter import Apart, interpret_apart, raised
from support.half_layout import MADE, MASKS, SCALES, Form, Norm, activations, assert_close, attention, masked, normed
from support.lowered import plain_answers
from triune.coreai.lowering import LowerOptions, lower
from triune.graph.conversion.options import Layout, Precision
from triune.graph.session import GraphSession

_NORMS: list[Norm] = ["divided", "inverted", "power", "centred", "layer"]


_APART = Apart(interpret_apart)


def _compare(
    model: ModelProto,
    folder: Path,
    *calls: Mapping[str, Any],
    precision: Precision = Precision.FP16,
    judge: ModelProto | None = None,
) -> None:
    lowered = lower(model, folder / "m.aimodel", LowerOptions(precision=precision, layout=Layout.ANE))
    assert lowered.layout is not None
    assert lowered.layout.num_layers
    session = GraphSession(raised(lowered.path), "raised")
    for feeds in calls:
        (right,) = plain_answers(judge or model, _wide(feeds))
        is_finite = precision is not Precision.FP32
        assert_close(_APART((lowered.path, feeds))["y"], right, is_finite=is_finite)
        assert_close(session.run(feeds, {})[0]["y"], right, is_finite=is_finite)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("batch", [2, "b"])
@pytest.mark.parametrize("norm", _NORMS)
def test_norms_hold_whatever_fp16_does(norm: Norm, batch: int | str, tmp_path: Path) -> None:
    calls = [{"x": activations(scale, kind=kind)} for scale in SCALES for kind in ("even", "one", "zero")]
    _compare(normed(norm, batch), tmp_path, *calls)


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
def test_masks_that_are_made_hold_rows_that_are_masked_whole(made: str, precision: Precision, tmp_path: Path) -> None:
    calls = [masked("whole", 0.0, kept=1.0), masked("whole", 1.0, kept=1.0), masked("whole", 1.0)]
    _compare(attention("whole", 2, MADE[made]), tmp_path, *calls, precision=precision)


def _wide(feeds: Mapping[str, Any]) -> dict[str, Any]:
    return {name: array.astype(np.float32) for name, array in feeds.items()}
