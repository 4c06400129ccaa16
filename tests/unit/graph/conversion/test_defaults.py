"""Initializers that are inputs, as files of IR version 3 list all of them, and newer ones those that a caller may
replace.
"""

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper

from support import lowered, lowered_coreai
from support.lowered import FLOAT, INT64, model_of
from triune.coreml.lowering import LowerOptions, lower
from triune.graph.conversion.prepare import prepare, silent
from triune.graph.normalize import normalize
from triune.graph.weight_files import WeightFile

FEEDS = {"x": np.arange(6, dtype=np.float32).reshape(1, 6) - 3}


def listing(ir_version: int) -> ModelProto:
    """A model that lists weights, a shape, the parameter of a folded node, and a weight that nothing reads."""
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["m"]),
        helper.make_node("Mul", ["one", "two"], ["k"]),
        helper.make_node("Reshape", ["m", "shape"], ["r"]),
        helper.make_node("Add", ["r", "k"], ["y"]),
    ]
    constants = {
        "weights": np.ones((6, 4), np.float32),
        "one": np.full(2, 3, np.float32),
        "two": np.full(2, 2, np.float32),
        "shape": np.array([2, -1]),
        "unread": np.zeros(7, np.float32),
    }
    listed = [(name, INT64 if name == "shape" else FLOAT, each.shape) for name, each in constants.items()]
    model = model_of(nodes, [("x", FLOAT, [1, 6]), *listed], [("y", FLOAT, [2, 2])], **constants)
    model.ir_version = ir_version
    model.opset_import[0].version = 9
    return model


@pytest.mark.parametrize("ir_version", [3, 8])
def test_initializers_that_are_inputs_become_constants(ir_version: int, tmp_path: Path) -> None:
    model = listing(ir_version)
    assert list(lower(model, tmp_path / "m.mlpackage").inputs) == ["x"]
    lowered.check(model, FEEDS, tmp_path)
    lowered_coreai.check(model, tmp_path, FEEDS)


def test_a_note_names_those_that_a_caller_could_replace() -> None:
    with WeightFile() as file:
        old, new = (prepare(listing(version), LowerOptions(), None, silent, file) for version in (3, 8))
    assert old.notes == ()
    (note,) = new.notes
    assert "become constants of that value: weights, one, two, shape and 1 more" in note


def test_core_operators_of_an_old_file_have_no_new_inputs() -> None:
    """In IR version 4, which the result has, a listed initializer would be one that callers may replace."""
    assert [value.name for value in normalize(listing(3)).graph.input] == ["x"]
    assert len(normalize(listing(8)).graph.input) > 1
