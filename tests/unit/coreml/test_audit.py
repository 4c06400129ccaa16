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


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_packed_weights_are_audited(tmp_path, precision):
    nodes = [N("DequantizeLinear", ["w", "s"], ["d"], axis=1), N("MatMul", ["x", "d"], ["y"])]
    packed = RNG.integers(-127, 127, (64, 24)).astype(np.int8)
    scales = np.linspace(0.01, 0.1, 24).astype(np.float32)
    model = model_of(nodes, [("x", FLOAT, [3, 64])], [("y", FLOAT, [3, 24])], w=packed, s=scales)

    audit = _audited(model, tmp_path, precision=precision)

    assert audit.findings == []
    assert ("common::add_fp16_cast" in audit.changed) == (precision is Precision.FP16)


def test_a_gelu_that_overflows_before_it_is_fused_is_not_blamed(tmp_path):
    nodes = [
        N("Mul", ["x", "v"], ["q"]),
        N("Div", ["q", "root"], ["a"]),
        N("Erf", ["a"], ["b"]),
        N("Add", ["b", "one"], ["c"]),
        N("Mul", ["q", "c"], ["d"]),
        N("Mul", ["d", "half"], ["g"]),
        N("MatMul", ["g", "w"], ["y"]),
    ]
    numbers = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    weights = RNG.standard_normal((64, 5)).astype(np.float32)
    model = model_of(
        nodes, [("x", FLOAT, [8, 64])], [("y", FLOAT, [8, 4])], v=weights[:, 0], w=weights[:, 1:] / 10, **numbers
    )

    audit = _audited(model, tmp_path)

    assert audit.findings == []
    assert "fuse_gelu" in audit.changed


def test_a_repeated_conversion_is_not_compared_with_the_last_one(tmp_path):
    # `convert` writes the program again, with more nodes in fp32, where fp16 is not exact enough.
    nodes = [N("Conv", ["x", "w"], ["c"]), N("Div", ["s", "c"], ["y"])]
    weights = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in (("w", (4, 4, 2, 3)), ("s", ()))}
    model = model_of(nodes, [("x", FLOAT, [2, 4, 6, 6])], [("y", FLOAT, [2, 4, 5, 4])], **weights)
    audit = Audit()
    for wide in (frozenset[str](), frozenset(["c", "y"])):
        lower(model, tmp_path / "m.mlpackage", LowerOptions(precision=Precision.FP16, wide=wide), audit=audit.begin)
        assert audit.findings == []
