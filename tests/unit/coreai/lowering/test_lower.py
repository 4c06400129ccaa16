from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from support.apple_interpreter import Apart, interpret
from support.graphs import old_model
from support.lowered import FLOAT, model_of
from support.lowered_coreai import check
from support.transformers import hidden, llama
from support.vision import Family, exported_vision, images
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreai.library import authoring
from triune.coreai.lowering import LowerOptions, Source, lower, lower_functions
from triune.graph.check import sample_inputs
from triune.graph.conversion.options import Layout, Precision
from triune.graph.conversion.shapes import InputShape, Range
from triune.graph.state_names import new_state


def _interpret(arguments: tuple[Any, ...]) -> dict[str, Any]:
    path, inputs, function, states = arguments
    return interpret(path, inputs, function=function, states=states)


@pytest.fixture(scope="module")
def apart() -> Any:
    """Apple's interpreter: path, inputs, function and states to the outputs."""
    process = Apart(_interpret)

    def run(path: Path, inputs: Any, function: str = "main", states: Any = None) -> dict[str, Any]:
        return process((path, inputs, function, states))

    return run


def _linear(weight: Any, rows: Any = "rows") -> Any:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    width, depth = weight.shape
    return model_of(nodes, [("x", FLOAT, [rows, width])], [("y", FLOAT, [rows, depth])], w=weight)


def test_models_of_old_operator_sets_answer_as_they_did(tmp_path: Path) -> None:
    model = old_model()
    check(model, tmp_path, sample_inputs(model))


@pytest.mark.parametrize("kind", ["FLOAT8E4M3FN", "FLOAT8E5M2"])
def test_casts_to_floats_that_core_ai_has_not_are_named(kind: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["q"], to=getattr(TensorProto, kind)),
        helper.make_node("Cast", ["q"], ["y"], to=FLOAT),
    ]
    model = model_of(nodes, [("x", FLOAT, [3])], [("y", FLOAT, [3])])
    with pytest.raises(UnsupportedError, match=rf"Cast 'q': a cast to TensorProto\.{kind}: core ops compute in fp16"):
        lower(model, tmp_path / "m.aimodel")


def _num_bytes(path: Path) -> int:
    return sum(each.stat().st_size for each in path.iterdir())


def _text(path: Path) -> str:
    return str(authoring.AIModelAsset.load(path).program)


def test_states_are_kept_between_calls(apart: Any, tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["past", "x"], ["next"]), helper.make_node("Mul", ["next", "x"], ["y"])]
    model = model_of(
        nodes, [("past", FLOAT, [1, 4]), ("x", FLOAT, [1, 4])], [("next", FLOAT, [1, 4]), ("y", FLOAT, [1, 4])]
    )
    lowered = lower(model, tmp_path / "m.aimodel", LowerOptions(states={"past": "next"}))
    x, state = np.full((1, 4), 2, np.float32), np.ones((1, 4), np.float32)
    for right in (3, 5, 7):
        answers = apart(lowered.path, {"x": x}, "main", {"past": state})
        state = answers[new_state("past")]
        np.testing.assert_array_equal(state, np.full((1, 4), right))
        np.testing.assert_array_equal(answers["y"], np.full((1, 4), 2 * right))


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ({"pas": "next"}, "'pas'.*'past', 'x'"),
        ({"past": "nex"}, "'nex'.*'next', 'y'"),
        ({"x": "y"}, r"\[rows, 4\].*one fixed shape"),
    ],
)
def test_wrong_states_are_refused(states: Any, told: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["past", "past"], ["next"]), helper.make_node("Neg", ["x"], ["y"])]
    inputs = [("past", FLOAT, [1, 4]), ("x", FLOAT, ["rows", 4])]
    model = model_of(nodes, inputs, [("next", FLOAT, [1, 4]), ("y", FLOAT, ["rows", 4])])
    with pytest.raises(InvalidArgumentError, match=told):
        lower(model, tmp_path / "m.aimodel", LowerOptions(states=states))


def test_functions_share_their_weights(apart: Any, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((128, 128)).astype(np.float32)
    one = lower(_linear(weight), tmp_path / "one.aimodel")
    sources = {"prefill": Source(_linear(weight), LowerOptions()), "decode": Source(_linear(weight, 1), LowerOptions())}
    both = lower_functions(sources, tmp_path / "both.aimodel")
    assert both.functions == ("prefill", "decode")
    assert _num_bytes(both.path) < _num_bytes(one.path) + 4096
    x = np.ones((3, 128), np.float32)
    np.testing.assert_allclose(apart(both.path, {"x": x}, "prefill")["y"], x @ weight, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(apart(both.path, {"x": x[:1]}, "decode")["y"], x[:1] @ weight, rtol=1e-4, atol=1e-4)


def test_several_shapes_are_several_functions(apart: Any, tmp_path: Path) -> None:
    weight = np.eye(4, dtype=np.float32)
    shape = InputShape(((1, 4), (8, 4)))
    lowered = lower(_linear(weight), tmp_path / "m.aimodel", LowerOptions(shapes={"x": shape}))
    assert lowered.functions == ("main_of_1x4", "main_of_8x4")
    x = np.arange(32, dtype=np.float32).reshape(8, 4)
    np.testing.assert_array_equal(apart(lowered.path, {"x": x}, "main_of_8x4")["y"], x)


def test_ranges_are_free_dimensions_whose_limits_the_metadata_holds(apart: Any, tmp_path: Path) -> None:
    shape = InputShape(((Range(1, 8), 4),))
    lowered = lower(_linear(np.eye(4, dtype=np.float32)), tmp_path / "m.aimodel", LowerOptions(shapes={"x": shape}))
    metadata = authoring.AIModelAsset.load(lowered.path).metadata.creator_defined_metadata
    assert metadata["triune.source"]["main"]["limits"] == {"x": [[[1, 8], 4]]}
    x = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(apart(lowered.path, {"x": x})["y"], x)


def _of_few_values(rng: Any) -> Any:
    return rng.standard_normal(16).astype(np.float32)[rng.integers(0, 16, (128, 128))]


def _of_many_zeros(rng: Any) -> Any:
    return np.where(rng.random((128, 128)) < 0.2, rng.standard_normal((128, 128)), 0).astype(np.float32)


def _of_few_values_in_columns(rng: Any) -> Any:
    """16 values in each 32 output channels, 64 and more in all: one table would have 64 entries, and indices of 8 bits.

    Beyond 256 in all there would be no table.
    """
    tables = rng.standard_normal((4, 1, 16)).astype(np.float32)
    parts = [np.take(table[0], rng.integers(0, 16, (128, 32))) for table in tables]
    return np.concatenate(parts, axis=1)


def _of_many_tables(rng: Any) -> Any:
    """A table of 4 values for each 2 input channels, more than 256 in all."""
    tables = rng.standard_normal((64, 4)).astype(np.float32) + np.arange(64, dtype=np.float32)[:, np.newaxis]
    return np.concatenate([table[rng.integers(0, 4, (2, 128))] for table in tables])


PACKABLE = [(_of_few_values, 0.2), (_of_many_zeros, 0.3), (_of_few_values_in_columns, 0.33), (_of_many_tables, 0.2)]


@pytest.mark.parametrize(("make", "share"), PACKABLE)
def test_weights_are_packed_exactly(make: Any, share: float, apart: Any, tmp_path: Path) -> None:
    weight = make(np.random.default_rng(0))
    model = _linear(weight)
    dense = lower(model, tmp_path / "dense.aimodel")
    packed = lower(model, tmp_path / "packed.aimodel", LowerOptions(packs_weights=True))
    assert _num_bytes(packed.path) < share * _num_bytes(dense.path)
    x = np.eye(128, dtype=np.float32)
    np.testing.assert_array_equal(apart(packed.path, {"x": x})["y"], weight)


def test_dense_weights_are_not_packed(tmp_path: Path) -> None:
    model = _linear(np.random.default_rng(0).standard_normal((128, 128)).astype(np.float32))
    lowered = lower(model, tmp_path / "m.aimodel", LowerOptions(packs_weights=True))
    assert "lut_to_dense" not in _text(lowered.path)
    assert "bitmask" not in _text(lowered.path)


@pytest.mark.parametrize(("precision", "error"), [(Precision.FP32, 1e-4), (Precision.FP16, 0.05)])
def test_a_transformer_keeps_whole_what_core_ai_knows(
    precision: Precision, error: float, apart: Any, tmp_path: Path
) -> None:
    model, feeds = llama(), hidden(2, 5)
    lowered = lower(model, tmp_path / "m.aimodel", LowerOptions(precision=precision))
    text = _text(lowered.path)
    # Equal functions are one, which is called twice.
    kinds = ("rms_norm", "rope", "scaled_dot_product_attention")
    assert all(f'"{kind}"' in text for kind in kinds)
    counts = {kind: text.count(f"coreai.invoke @main_{kind}") for kind in kinds}
    assert counts == {"rms_norm": 2, "rope": 2, "scaled_dot_product_attention": 1}
    expected = ort.InferenceSession(model.SerializeToString()).run(None, dict(feeds))[0]
    np.testing.assert_allclose(apart(lowered.path, feeds)["y"], expected, atol=error)


@pytest.mark.parametrize("family", ["dinov2", "clip"])
def test_a_vision_transformer_of_any_batch_in_the_neural_engines_layout(family: Family, tmp_path: Path) -> None:
    options = LowerOptions(shapes={"pixels": InputShape(((Range(1, 4), 3, 16, 16),))}, layout=Layout.ANE)
    check(exported_vision(family), tmp_path, images(1), images(3), options=options, atol=1e-4)


def test_names_are_those_of_the_source(apart: Any, tmp_path: Path) -> None:
    model = model_of(
        [helper.make_node("Neg", ["in put:0"], ["größe"])], [("in put:0", FLOAT, [2])], [("größe", FLOAT, [2])]
    )
    lowered = lower(model, tmp_path / "m.aimodel")
    np.testing.assert_array_equal(apart(lowered.path, {"in put:0": np.ones(2, np.float32)})["größe"], [-1, -1])


def test_all_that_cannot_be_converted_is_told_at_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("BitCast", ["x"], ["a"], name="first", to=TensorProto.INT32),
        helper.make_node("Unknown", ["x"], ["b"], name="second", domain="com.example"),
    ]
    model = model_of(nodes, [("x", FLOAT, [2])], [("a", TensorProto.INT32, [2]), ("b", FLOAT, [2])])
    model.opset_import[0].version = 26
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(UnsupportedError) as caught:
        lower(model, tmp_path / "m.aimodel")
    assert "BitCast 'first'" in str(caught.value)
    assert "com.example:Unknown 'second'" in str(caught.value)
    assert not (tmp_path / "m.aimodel").exists()


def test_the_path_says_what_is_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"\.aimodel"):
        lower(_linear(np.eye(2, dtype=np.float32)), tmp_path / "m.mlpackage")


def test_a_program_that_is_not_saved_tells_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*_: Any) -> None:
        raise RuntimeError("failed to persist mlasset")

    monkeypatch.setattr(authoring.AIProgram, "save_asset", save)
    inputs = [("x", FLOAT, ["n", 2]), ("w", FLOAT, [1, 2])]
    model = model_of([helper.make_node("Mul", ["x", "w"], ["y"])], inputs, [("y", FLOAT, ["n", 2])])
    with pytest.raises(UnsupportedError, match="failed to persist mlasset; .* give fixed sizes with --shape for 'x'$"):
        lower(model, tmp_path / "m.aimodel")
