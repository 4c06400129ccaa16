"""Operators of other domains written with core ops: ONNX Runtime's answers, case by case."""

import pytest

from support.contrib import CASES
from support.contrib.case import Case, computed, difference, lowered_opset
from triune.graph.normalize import foreign_ops, normalize


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_core_ops_answer_as_onnx_runtime_does(case: Case) -> None:
    if case.reason:
        assert len(foreign_ops(normalize(case.model()))) == 1
        return
    expected = case.expected()
    normal = normalize(case.model({name: right.shape for name, right in expected.items()}))
    assert foreign_ops(normal) == []
    for (name, right), actual in zip(expected.items(), computed(lowered_opset(normal), case.feeds()), strict=True):
        assert actual.dtype == right.dtype
        assert difference(case, name, actual, right) == ""
