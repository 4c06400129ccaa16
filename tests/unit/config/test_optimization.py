"""A config's optimization level."""

import pytest

from triune.config.optimization import OPTIMIZATION_PARAMETER, optimization_of
from triune.core.errors import InvalidArgumentError
from triune.graph.optimizing.level import Level


def test_levels() -> None:
    assert optimization_of({}, ".mlpackage", has_plan=True) is None
    for level in Level:
        assert optimization_of({OPTIMIZATION_PARAMETER: level.value}, ".onnx", has_plan=False) is level


@pytest.mark.parametrize("text", ["O4", "o2", "2", "", "O2 "])
def test_unknown_levels_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="'optimization_level' is .*; write one of O0, O1, O2, O3"):
        optimization_of({OPTIMIZATION_PARAMETER: text}, ".onnx", has_plan=False)


def test_other_files_and_plans_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="is for .onnx files; the model is a .mlpackage"):
        optimization_of({OPTIMIZATION_PARAMETER: "O1"}, ".mlpackage", has_plan=False)
    with pytest.raises(InvalidArgumentError, match="a plan cuts this one"):
        optimization_of({OPTIMIZATION_PARAMETER: "O1"}, ".onnx", has_plan=True)
