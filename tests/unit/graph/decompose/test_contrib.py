"""Operators of other domains written with core ops: ONNX Runtime's answers, case by case."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from support.contrib import CASES
from support.contrib.case import Case, computed, difference, lowered_opset, microsoft
from support.graphs import model_of
from triune.graph.conversion.unconverted import why_unconverted
from triune.graph.decompose import Decompose
from triune.graph.decompose.classical.tables import Tabulate
from triune.graph.normalize import foreign_ops, normalize


@pytest.mark.sampled(5)
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


def test_packed_operands_are_their_parts() -> None:
    """ONNX Runtime's CPU kernels take them one by one alone."""
    apart = next(each for each in CASES if each.name == "MultiHeadAttention bias")
    q, k, v = (apart.inputs[name] for name in "qkv")
    heads = [each.reshape(2, 4, 2, 1, 6) for each in (q, k, v)]
    bias, kind = apart.inputs["b"], apart.attributes
    packings: list[dict[str, Any]] = [
        {"q": np.concatenate(heads, axis=3), "k": None, "v": None, "b": bias},
        {"q": q, "k": np.concatenate(heads[1:], axis=3), "v": None, "b": None},
    ]
    for inputs in packings:
        whole = apart if inputs["b"] is not None else next(each for each in CASES if each.name == "MultiHeadAttention ")
        expected = whole.expected()["y"]
        packed = microsoft(
            "MultiHeadAttention", inputs, weights=["b"] if inputs["b"] is not None else [], attributes=kind
        )
        normal = normalize(packed.model({"y": expected.shape}))
        assert foreign_ops(normal) == []
        (actual,) = computed(lowered_opset(normal), packed.feeds())
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", ["NhwcConv", "NhwcFusedConv"])
def test_images_with_channels_last_are_convolved(op: str) -> None:
    """ONNX Runtime has no kernel for them on this CPU: they are FusedConv of images turned around."""
    apart = next(each for each in CASES if each.op_type == "FusedConv" and each.inputs["z"] is not None)
    taken = apart.inputs if op == "NhwcFusedConv" else {**apart.inputs, "z": None}
    kind = apart.attributes if op == "NhwcFusedConv" else {**apart.attributes, "activation": None}
    expected = replace(apart, inputs=taken, attributes=kind).expected()["y"].transpose(0, 2, 3, 1)
    last = {
        name: each.transpose(0, 2, 3, 1) if name in "xz" and each is not None else each for name, each in taken.items()
    }
    case = microsoft(op, {k: v for k, v in last.items() if v is not None}, weights=apart.weights, attributes=kind)
    normal = normalize(case.model({"y": expected.shape}))
    assert foreign_ops(normal) == []
    (actual,) = computed(lowered_opset(normal), case.feeds())
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", [[1], [-1, 0], None])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_quantized_means_are_those_of_what_they_stand_for(axes: list[int] | None, keepdims: int) -> None:
    """ONNX Runtime has no kernel; its documentation says: dequantized, ReduceMean, quantized."""
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 4)).astype(np.uint8)
    scales = {"xs": np.array(0.02, np.float32), "xz": np.array(7, np.uint8)}
    scales |= {"ys": np.array(0.013, np.float32), "yz": np.array(20, np.uint8)}
    attributes = {"axes": axes, "keepdims": keepdims}
    case = microsoft(
        "QLinearReduceMean", {"x": x, **scales}, weights=list(scales), outputs={"y": np.uint8}, attributes=attributes
    )
    mean = ((x.astype(np.float64) - 7) * 0.02).mean(axis=tuple(axes) if axes else None, keepdims=bool(keepdims))
    expected = np.clip(np.rint(mean / 0.013) + 20, 0, 255)
    normal = normalize(case.model({"y": expected.shape}))
    assert foreign_ops(normal) == []
    (actual,) = computed(lowered_opset(normal), case.feeds())
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)


def test_rows_behind_a_sequences_end_do_not_count() -> None:
    """What ONNX Runtime gives for them is what was in its memory."""
    full = next(each for each in CASES if each.name == "GroupQueryAttention prompt")
    case = replace(full, inputs={**full.inputs, "seqlens": np.array([3, 1], np.int32)})
    expected = case.expected()
    normal = normalize(case.model({name: right.shape for name, right in expected.items()}))
    actual = computed(lowered_opset(normal), case.feeds())[0]
    np.testing.assert_allclose(actual[0], expected["y"][0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(actual[1, :2], expected["y"][1, :2], rtol=1e-4, atol=1e-5)


def test_many_in_a_row_are_all_written_though_each_hides_the_types_of_the_next() -> None:
    steps = "".join(f"a{n} = com.microsoft.QuickGelu (x{n})  x{n + 1} = Add (a{n}, x)  " for n in range(12))
    text = f"agraph (float[2,3] x) => (float[2,3] y) {{ x0 = Identity (x)  {steps} y = Identity (x12) }}"
    model = model_of(text, imports=', "com.microsoft" : 1')
    assert foreign_ops(normalize(model)) == []


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("com.microsoft.nchwc.ReorderInput", "lower optimization level"),
        ("com.microsoft.Tokenizer", "is not known here"),
        ("com.example.Own", "define the operator in standard operators: as a function of the model"),
        ("ai.onnx.ml.CastMap", "dictionary"),
        ("TfIdfVectorizer", "tokens"),
    ],
)
def test_what_is_left_says_why(node: str, reason: str) -> None:
    domain, _, op_type = node.rpartition(".")
    left = helper.make_node(op_type, ["x"], ["y"], domain=domain)
    model = Decompose()(helper.make_model(helper.make_graph([left], "g", [], [])))
    assert reason in why_unconverted(model.graph.node[0], "Core ML")


def test_what_onnx_runtime_saves_is_taken_though_its_version_is_too_old_for_it() -> None:
    """It keeps the version of a model in which initializers had to be inputs."""
    conv = next(each for each in CASES if each.name == "FusedConv Relu")
    model = conv.model({"y": conv.expected()["y"].shape})
    model.ir_version = 3
    assert foreign_ops(normalize(model)) == []


def test_tables_take_the_place_of_the_attributes_of_trees() -> None:
    case = next(each for each in CASES if each.name == "TreeEnsembleRegressor many")
    model = Tabulate()(case.model({"y": (12, 1)}))
    (node,) = model.graph.node
    assert all(
        len(attribute.ints) + len(attribute.floats) + len(attribute.strings) < 20 for attribute in node.attribute
    )
    assert {each.data_type for each in model.graph.initializer} == {TensorProto.FLOAT, TensorProto.INT32}
