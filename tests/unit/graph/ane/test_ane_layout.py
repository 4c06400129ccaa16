"""Whole transformers in the Neural Engine's layout: the same answers, and what is gained."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from support.graphs import model_of, ops_of
from support.llama import Exporter, exported_llama, llama_inputs
from support.real_models import inputs_of
from support.transformers import VOCABULARY, encoder, gpt2, hidden, llama, minilm_inputs, random_minilm
from triune.core.errors import InternalError
from triune.graph import ane
from triune.graph.ane import Report, ane_layout
from triune.graph.ane.layout import Layout
from triune.graph.check import sample_inputs
from triune.graph.core_ops import CORE_OPS
from triune.graph.normalize import foreign_ops, normalize
from triune.zoo import rapidocr_rec
from triune.zoo.packages import PackageCache

Inputs = Mapping[str, NDArray[Any]]


def answers(model: ModelProto, inputs: Inputs) -> list[NDArray[Any]]:
    # onnxruntime publishes partial types.
    runtime: Any = ort
    return runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, dict(inputs)
    )


def assert_same(model: ModelProto, other: ModelProto, inputs_of: Callable[[int, int], Inputs]) -> None:
    for batch, length in ((1, 8), (3, 5), (2, 1)):
        inputs = inputs_of(batch, length)
        for before, after in zip(answers(model, inputs), answers(other, inputs), strict=True):
            np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


def assert_same_interface(model: ModelProto, other: ModelProto) -> None:
    for before, after in ((model.graph.input, other.graph.input), (model.graph.output, other.graph.output)):
        assert list(before) == list(after)


def tokens(batch: int, length: int) -> Inputs:
    return {"tokens": np.random.default_rng(length).integers(0, VOCABULARY, (batch, length))}


@pytest.fixture(scope="module")
def minilm() -> ModelProto:
    return normalize(random_minilm())


@pytest.fixture(scope="module")
def laid_minilm(minilm: ModelProto) -> ModelProto:
    return ane_layout(minilm)


def test_minilm_keeps_a_transpose_for_each_layers_keys_and_two_at_the_borders(minilm: ModelProto) -> None:
    model, report = minilm, Report()
    laid = ane_layout(model, report)
    before, after = Counter(ops_of(model)), Counter(ops_of(laid))
    # Before, 36 of them are of weights.
    assert (before["Transpose"], after["Transpose"]) == (24 + 36, 8)
    assert (before["Reshape"], after["Reshape"]) == (24, 0)
    # 36 linear layers; 2 products in each of 6 layers, for all of 12 heads or for each.
    assert (before["MatMul"], after["MatMul"]) == (36 + 2 * 6, 2 * 6 * 12)
    assert (before["Conv"], after["Conv"]) == (0, 36)
    assert (before["Softmax"], after["Softmax"]) == (6, 6 * 12)
    assert (before["LayerNormalization"], after["LayerNormalization"]) == (13, 0)
    assert set(after) <= CORE_OPS
    assert report.left == []
    counts = report.counts()
    counts.pop("cancel")
    assert counts == {"linear_to_conv": 36, "split_heads": 6, "channel_norm": 13, "layout": 18}
    assert_same_interface(model, laid)
    assert_same(model, laid, minilm_inputs)


def test_minilms_only_transposes_are_the_keys_and_the_borders(laid_minilm: ModelProto) -> None:
    perms = Counter(tuple(node.attribute[0].ints) for node in laid_minilm.graph.node if node.op_type == "Transpose")
    assert perms == {(0, 3, 2, 1): 6, (0, 2, 1): 2}


def test_the_given_model_is_not_changed_and_the_result_is_valid() -> None:
    model = normalize(gpt2())
    before = model.SerializeToString(deterministic=True)
    laid = ane_layout(model)
    assert model.SerializeToString(deterministic=True) == before
    # onnx publishes partial types.
    checker: Any = onnx.checker
    checker.check_model(laid, full_check=True)


def test_normalizing_again_keeps_the_layout() -> None:
    laid = ane_layout(normalize(gpt2()))
    assert Counter(ops_of(normalize(laid))) == Counter(ops_of(laid))


def test_a_second_time_changes_no_count(laid_minilm: ModelProto) -> None:
    assert Counter(ops_of(ane_layout(laid_minilm))) == Counter(ops_of(laid_minilm))


def test_gpt2_of_two_layers() -> None:
    model = normalize(gpt2())
    report = Report()
    laid = ane_layout(model, report)
    before, after = Counter(ops_of(model)), Counter(ops_of(laid))
    # The keys of two layers, the causal mask, and the borders.
    assert (before["Transpose"], after["Transpose"]) == (8, 5)
    assert (before["Reshape"], after["Reshape"]) == (24, 0)
    assert (before["Gemm"] + before["MatMul"], after["Conv"]) == (8 + 5, 9)
    assert after["Gemm"] == 0
    assert report.left == []
    assert set(after) <= CORE_OPS
    assert_same_interface(model, laid)
    assert_same(model, laid, tokens)


def test_llama_with_rope_and_shared_keys() -> None:
    model = normalize(llama())
    report = Report()
    laid = ane_layout(model, report)
    counts = Counter(ops_of(laid))
    # 4 heads that share 2 of keys; the keys, the mask, the two tables and the borders are turned.
    assert (counts["Conv"], counts["Softmax"], counts["MatMul"], counts["Transpose"]) == (7, 4, 8, 6)
    assert counts["Reshape"] == counts["Expand"] == counts["Neg"] == 0
    assert report.left == []
    assert_same_interface(model, laid)
    assert_same(model, laid, hidden)


@pytest.mark.parametrize("exporter", ["traced", "dynamo"])
def test_llama_as_exporters_write_it(exporter: Exporter) -> None:
    source = exported_llama(exporter)
    model = normalize(source)
    report = Report()
    laid = ane_layout(model, report, check=llama_inputs(2, 3, is_padded=False))
    counts = Counter(ops_of(laid))
    assert (counts["Conv"], counts["Softmax"], counts["MatMul"], counts["Reshape"]) == (15, 8, 16 + 1, 0)
    # The keys of two layers, the mask, and the borders; the tables come turned as the exporters made them.
    assert counts["Transpose"] == 5
    assert report.counts()["rope"] == 4
    assert report.left == []
    assert_same_interface(model, laid)
    # A row that is masked whole is 0 where the export catches its NaN, and means nothing where it does not.
    assert_same(source, laid, lambda b, s: llama_inputs(b, s, is_padded=exporter == "dynamo"))


def test_rapidocrs_recogniser_of_convolutions_and_attention() -> None:
    (content,) = PackageCache().read(rapidocr_rec.PACKAGE, [rapidocr_rec.MODEL])
    model = normalize(onnx.load_model_from_string(content))
    report = Report()
    laid = ane_layout(model, report)
    before, after = Counter(ops_of(model)), Counter(ops_of(laid))
    # The keys of two attentions of 8 heads, and the border behind.
    assert (before["Transpose"], after["Transpose"]) == (9, 3)
    assert (before["Reshape"], after["Reshape"]) == (6, 1)
    assert (before["Conv"], after["Conv"]) == (38, 38 + 9)
    assert (before["MatMul"], after["MatMul"]) == (9 + 2 * 2, 2 * 2 * 8)
    assert set(after) <= CORE_OPS
    assert report.left == []
    assert_same(model, laid, lambda batch, length: inputs_of("rapidocr_rec", length=8 * batch + length))


@pytest.mark.parametrize("cut", ["thirds", "stacked", "interleaved", "scaled"])
def test_heads_are_found_however_they_are_cut(cut: str) -> None:
    model = normalize(encoder(cut))
    report = Report()
    laid = ane_layout(model, report)
    counts = Counter(ops_of(laid))
    assert (counts["Conv"], counts["Softmax"], counts["MatMul"], counts["Transpose"]) == (2, 4, 8, 3)
    assert counts["Reshape"] == 0
    assert report.left == []
    assert_same(model, laid, hidden)


def test_every_pass_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Layout):
        def __call__(self, model: ModelProto) -> ModelProto:
            for node in model.graph.node:
                node.op_type = "Sub" if node.op_type == "Add" else node.op_type
            return model

    model = normalize(encoder("thirds"))
    inputs = hidden(2, 3)
    assert Counter(ops_of(ane_layout(model, check=inputs)))["Conv"] == 2
    passes = [Wrong if each is Layout else each for each in ane._LAYOUT]
    monkeypatch.setattr(ane, "_LAYOUT", passes)
    with pytest.raises(InternalError, match="pass 'layout' changed output 'y' by up to"):
        ane_layout(model, check=inputs)


@pytest.mark.parametrize(
    "text",
    [
        "agraph (float[N,3,8,8] x, float[4,3,3,3] w) => (float[N,4,6,6] y) { z = Conv (x, w)  y = Relu (z) }",
        """agraph (float[2,N,4] x) => (float[2,N,4] y) {
             t = Transpose <perm=[0,2,1]> (x)  y = Transpose <perm=[0,2,1]> (t) }""",
        "agraph (float[2,3] x, float[3,4] z) => (float[2,4] y) { y = MatMul (x, z) }",
        """agraph (bool c, float[2] x) => (float[2] y) {
             y = If (c) <then_branch = g1 () => (float[2] a) { a = Neg (x) },
                         else_branch = g2 () => (float[2] b) { b = Abs (x) }> }""",
    ],
)
def test_models_without_linear_layers_of_sequences_stay_as_they_are(text: str) -> None:
    model = normalize(model_of(text))
    report = Report()
    assert ane_layout(model, report) == model
    assert report.changed == []
    assert str(report).startswith("changed: nothing")


def test_rows_without_a_sequence_stay_and_are_reported() -> None:
    text = """agraph (float[N,4] x) => (float[N,3] y)
      <float[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}> { [head] y = MatMul (x, w) }"""
    model = normalize(model_of(text))
    report = Report()
    assert ane_layout(model, report) == model
    assert (
        str(report.left[0])
        == "linear_to_conv: MatMul 'head': its operand (B, C) has no sequence: the last axis would be 1"
    )


def test_values_that_branches_read_stay() -> None:
    text = """agraph (bool c, float[1,N,2] x) => (float[1,N,2] y)
      <float[2,2] w = {1,2,3,4}> {
        z = MatMul (x, w)  g = Gelu (z)
        y = If (c) <then_branch = g1 () => (float[1,N,2] a) { a = Neg (g) },
                    else_branch = g2 () => (float[1,N,2] b) { b = Abs (z) }> }"""
    model = normalize(model_of(text))
    laid = ane_layout(model)
    assert Counter(ops_of(laid))["Conv"] == 1
    for chosen in (True, False):
        inputs = {**sample_inputs(model), "c": np.array(chosen)}
        np.testing.assert_allclose(answers(laid, inputs)[0], answers(model, inputs)[0], rtol=1e-5, atol=1e-6)


def test_foreign_operators_are_let_alone() -> None:
    text = """agraph (float[1,N,2] x) => (float[1,N,2] y, float[K] u)
      <float[2,2] w = {1,2,3,4}> { z = MatMul (x, w)  y = Relu (z)  u = Unique (z) }"""
    model = normalize(model_of(text), keep=["Unique"])
    laid = ane_layout(model)
    assert [name.split()[0] for name in foreign_ops(laid)] == ["Unique"]
    inputs = sample_inputs(model)
    for before, after in zip(answers(model, inputs), answers(laid, inputs), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5)
