"""An audit of the passes over a program names the one that changes an answer, and no other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from support.lowered import FLOAT, INT64, model_of
from triune.core.errors import UnsupportedError
from triune.coreml.audit import Audit
from triune.coreml.lowering import LowerOptions, lower
from triune.coreml.lowering.passes import pipeline
from triune.coreml.lowering.passes.mil_pass import VendorPass
from triune.graph.conversion.options import Precision
from triune.graph.conversion.shapes import parse_shapes

N = helper.make_node
RNG = np.random.default_rng(2)


def _audited(model: ModelProto, folder: Path, given: Any = None, **options: Any) -> Audit:
    audit = Audit(given)
    lower(model, folder / "m.mlpackage", LowerOptions(**options), audit=audit.begin)
    audit.require_answers()
    return audit


def _quotient() -> ModelProto:
    nodes = [N("Div", ["x", "k"], ["d"]), N("Floor", ["d"], ["y"])]
    return model_of(nodes, [("x", FLOAT, ["n", 16])], [("y", FLOAT, ["n", 16])], k=np.float32(41))


def test_a_vendor_pass_that_flips_a_floor_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "PASSES", (VendorPass("common::divide_to_multiply"), *pipeline.PASSES))

    audit = _audited(_quotient(), tmp_path, shapes=parse_shapes(["x=1..8,16"]))

    assert {each.step for each in audit.findings} == {"common::divide_to_multiply"}
    found = audit.findings[0]
    assert (found.output, found.inputs) == ("y", "multiples")
    assert float(found.difference.before) == float(found.difference.after) + 1


def test_a_pass_that_breaks_the_program_is_named(tmp_path, monkeypatch):
    nodes = [N("Mul", ["x", "k"], ["m"]), N("Add", ["m", "b"], ["y"])]
    model = model_of(
        nodes,
        [("x", FLOAT, [1, 3, 2, 2])],
        [("y", FLOAT, [1, 3, 2, 2])],
        k=np.ones((3, 1, 1), np.float32),
        b=np.ones((1, 1, 1, 1), np.float32),
    )
    monkeypatch.setattr(pipeline, "PASSES", (VendorPass("common::fuse_elementwise_to_batchnorm"), *pipeline.PASSES))

    audit = _audited(model, tmp_path)

    assert audit.findings[0].step == "common::fuse_elementwise_to_batchnorm"
    assert "an error" in audit.findings[0].difference.after


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_what_is_right_is_not_blamed(tmp_path, precision):
    nodes = [
        N("Gather", ["table", "i"], ["e"]),
        N("MatMul", ["e", "w"], ["m"]),
        N("Add", ["m", "b"], ["a"]),
        N("Sigmoid", ["a"], ["s"]),
        N("Mul", ["a", "s"], ["y"]),
    ]
    constants = {
        name: RNG.standard_normal(shape).astype(np.float32) for name, shape in (("table", (7, 4)), ("w", (4, 4)))
    }
    model = model_of(nodes, [("i", INT64, [5])], [("y", FLOAT, [5, 4])], b=np.ones(4, np.float32), **constants)

    audit = _audited(model, tmp_path, {"i": np.array([6, 0, 1, 2, 3])}, precision=precision)

    assert audit.findings == []
    assert "fuse_linear" in audit.changed
    assert ("common::add_fp16_cast" in audit.changed) == (precision is Precision.FP16)


def test_a_program_that_takes_no_input_is_not_called_right(tmp_path):
    nodes = [N("Reshape", ["x", "k"], ["r"]), N("Reshape", ["r", "s"], ["y"])]
    model = model_of(nodes, [("x", FLOAT, ["n", 4])], [("y", FLOAT, [5, 3])], k=np.array([-1]), s=np.array([5, 3]))

    with pytest.raises(UnsupportedError, match="takes none of the inputs that were made up"):
        _audited(model, tmp_path, shapes=parse_shapes(["x=2..3,4"]))
