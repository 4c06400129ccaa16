"""Graphs that fp16 does not hold on the way, as assets of fp16, by Apple's interpreter and as they are raised."""

from pathlib import Path

import pytest

from support.apple_interpreter import Apart, interpret
from support.graphs import model_of
from support.half_cases import CASES, chosen, joined, misses
from triune.core.errors import UnsupportedError
from triune.coreai.lowering import LowerOptions, lower
from triune.coreai.model import Model
from triune.graph.conversion.options import Precision
from triune.graph.passes.narrow import narrow_array


def _interpret(argument: tuple[Path, dict[str, object]]) -> dict[str, object]:
    return interpret(*argument)


_APART = Apart(_interpret)


def test_answers_are_those_of_fp32(stride: int, tmp_path: Path) -> None:
    cases = chosen(CASES[1:], stride)
    lowered = lower(joined(cases), tmp_path / "m.aimodel", LowerOptions(precision=Precision.FP16))
    feeds = {name: narrow_array(name, array) for case in cases for name, array in case.renamed_feeds().items()}
    assert misses(cases, _APART((lowered.path, feeds))) == []
    with Model(lowered.path, executor="onnxruntime") as model:
        assert misses(cases, model.predict(feeds)) == []
    assert "compute in fp32" in lowered.notes[0]


def test_refusals_name_nodes_as_the_model_does(tmp_path: Path) -> None:
    text = "agraph (float[1,2,8,8] x, float[3,4] r, int64[3] b) => (float[3,2,1,1] y) { y = RoiAlign (x, r, b) }"
    with pytest.raises(UnsupportedError, match="RoiAlign 'y': the number of its samples"):
        lower(model_of(text), tmp_path / "m.aimodel", LowerOptions(precision=Precision.FP16))
