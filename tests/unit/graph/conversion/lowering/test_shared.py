"""Core ops that are written once, by primitives that numpy computes: ONNX's own node tests."""

import numpy as np
import pytest

from support.numpy_builder import computed
from support.onnx_cases import Case, load_cases
from triune.graph.conversion.lowering.table import SHARED
from triune.graph.passes.narrow_values import narrow_array

_FAMILIES = frozenset(
    [
        *("LSTM", "GRU", "RNN", "BatchNormalization", "InstanceNormalization", "LayerNormalization"),
        *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ArgMax", "ArgMin"),
        *("GridSample", "NonMaxSuppression", "TopK", "OneHot", "NonZero", "ReverseSequence"),
        *("Shape", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Split", "Tile", "Trilu"),
        *("DepthToSpace", "SpaceToDepth"),
    ]
)


def _is_one(case: Case) -> bool:
    nodes = case.model.graph.node
    version = max((each.version for each in case.model.opset_import if not each.domain), default=0)
    return case.is_eligible and len(nodes) == 1 and nodes[0].op_type in _FAMILIES and version >= 11


def _has_elements(case: Case) -> bool:
    return all(np.size(array) for inputs, outputs in case.sets for array in (*inputs.values(), *outputs))


CASES = [case for case in load_cases() if _is_one(case) and _has_elements(case)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_numpy_by_the_shared_code_computes_what_onnx_says(case: Case) -> None:
    node = case.model.graph.node[0]
    for inputs, outputs in case.sets:
        narrow = {name: narrow_array(name, array) for name, array in inputs.items()}
        for found, right in zip(computed(node, case.model.graph, narrow), outputs, strict=True):
            assert found.shape == right.shape
            np.testing.assert_allclose(found, right, max(case.rtol, 1e-4), max(case.atol, 1e-6))


def test_every_family_has_a_case() -> None:
    assert {case.model.graph.node[0].op_type for case in CASES} == _FAMILIES
    assert set(SHARED) >= _FAMILIES
