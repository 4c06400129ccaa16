"""`triune.load`: one model on one unit."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

import triune
import triune.coreai
import triune.coreml
from support.lowered import FLOAT, model_of
from support.mil_models import save_accumulator, save_affine, save_classifier, save_functions, save_image_model
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.state import State
from triune.core.units import Presence, Unit
from triune.coreai.lowering import lower as lower_to_coreai
from triune.coreml.lowering import lower as lower_to_coreml
from triune.graph.verify import Verdict
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units
from triune.runtimes import missing

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def model() -> Any:
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    return model_of(nodes, [("x", FLOAT, [2, 4])], [("y", FLOAT, [2, 4])])


def _save(model: Any, path: Path) -> Path:
    match path.suffix:
        case ".onnx":
            onnx.save(model, path)
        case ".mlpackage":
            lower_to_coreml(model, path)
        case _:
            lower_to_coreai(model, path)
    return path


@pytest.mark.parametrize("suffix", [".onnx", ".mlpackage", ".aimodel"])
@pytest.mark.parametrize("unit", ["cpu", "ane"])
def test_every_form_runs_on_the_units_that_are_named(
    suffix: str, unit: str, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIUNE_CACHE", str(tmp_path / "cache"))
    with triune.load(_save(model, tmp_path / f"model{suffix}"), units=[unit]) as loaded:
        assert loaded.unit is Unit(unit)
        assert loaded.is_emulated == (unit == "ane")
        np.testing.assert_array_equal(loaded.run({"x": X})["y"], 2 * X)


def test_the_best_unit_is_never_an_emulated_one(model: Any, tmp_path: Path) -> None:
    with triune.load(_save(model, tmp_path / "model.onnx")) as loaded:
        assert not loaded.is_emulated


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({}, "'x' is missing"),
        ({"x": X, "z": X}, "no input 'z'"),
        ({"x": X.astype(np.float64)}, r"FP64\[2,4\]; the model takes x: FP32\[2,4\]"),
        ({"x": X[:1]}, r"FP32\[1,4\]"),
    ],
)
def test_wrong_inputs(inputs: Any, told: str, model: Any, tmp_path: Path) -> None:
    with triune.load(_save(model, tmp_path / "model.onnx")) as loaded:
        with pytest.raises(InvalidArgumentError, match=told):
            loaded.run(inputs)
        with pytest.raises(InvalidArgumentError, match="no output 'q'"):
            loaded.run({"x": X}, ["q"])


def test_what_cannot_be_loaded(model: Any, tmp_path: Path) -> None:
    path = _save(model, tmp_path / "model.onnx")
    with pytest.raises(NotFoundError):
        triune.load(tmp_path / "other.onnx")
    with pytest.raises(InvalidArgumentError, match=r"ends in none of \.onnx"):
        triune.load(tmp_path)
    with pytest.raises(InvalidArgumentError, match="'tpu'"):
        triune.load(path, ["tpu"])
    absent = [each for each in detect_units(read_cpu()) if each.presence is Presence.ABSENT]
    for status in absent:
        with pytest.raises(UnsupportedError, match=f"unit '{status.unit.value}' is absent"):
            triune.load(path, [status.unit.value])


def test_the_gpu_answers_through_mlx(model: Any, tmp_path: Path) -> None:
    if reason := missing().get("mlx"):
        pytest.skip(reason)
    with triune.load(_save(model, tmp_path / "model.onnx"), units=["gpu"]) as loaded:
        assert loaded.unit is Unit.GPU
        np.testing.assert_array_equal(loaded.run({"x": X})["y"], 2 * X)


def _identity(datatype: int, tmp_path: Path) -> Path:
    x, y = (helper.make_tensor_value_info(name, datatype, [None]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "identity.onnx")
    return tmp_path / "identity.onnx"


def test_truth_values_reach_a_core_ml_program_that_has_int32_for_them(tmp_path: Path) -> None:
    path = triune.convert(
        _identity(onnx.TensorProto.BOOL, tmp_path), tmp_path / "identity.mlpackage", shapes={"x": "2"}
    ).path
    assert path is not None
    given = np.array([True, False])
    for unit in ("cpu", "ane"):
        with triune.load(path, unit) as loaded:
            (found,) = loaded.run({"x": given}).values()
            np.testing.assert_array_equal(found.astype(bool), given)


@pytest.mark.parametrize(
    ("datatype", "given", "expected"),
    [
        (onnx.TensorProto.FLOAT, [1, 2], np.float32([1, 2])),
        (onnx.TensorProto.FLOAT, (0.1, float("inf")), np.float32([0.1, np.inf])),
        (onnx.TensorProto.FLOAT16, [0.1], np.float16([0.1])),
        (onnx.TensorProto.DOUBLE, [0.1], np.float64([0.1])),
        (onnx.TensorProto.INT64, [2**62], np.int64([2**62])),
        (onnx.TensorProto.INT32, [True, False], np.int32([1, 0])),
        (onnx.TensorProto.UINT8, [0, 255], np.uint8([0, 255])),
        (onnx.TensorProto.BOOL, [True, False], np.bool_([True, False])),
        (onnx.TensorProto.STRING, ["a", b"b"], np.array([b"a", b"b"], np.object_)),
    ],
)
def test_numbers_and_lists_become_arrays(datatype: int, given: Any, expected: Any, tmp_path: Path) -> None:
    with triune.load(_identity(datatype, tmp_path), "cpu") as loaded:
        (found,) = loaded.run({"x": given}).values()
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("datatype", "given", "told"),
    [
        (onnx.TensorProto.UINT8, [1, 256], "'x' holds 256, which UINT8 does not hold"),
        (onnx.TensorProto.UINT8, [-1], "'x' holds -1"),
        (onnx.TensorProto.INT32, [1.5], "'x' holds 1.5, which INT32"),
        (onnx.TensorProto.FLOAT, [2**24 + 1], "'x' holds 16777217, which FP32"),
        (onnx.TensorProto.FLOAT16, [1e6], "'x' holds 1000000.0, which FP16"),
        (onnx.TensorProto.FLOAT, ["a"], "'x' is made of str"),
        (onnx.TensorProto.FLOAT, [True], "'x' is made of bool"),
        (onnx.TensorProto.BOOL, [1], "'x' is made of int64"),
        (onnx.TensorProto.STRING, [1], "'x' holds what is neither text nor bytes"),
        (onnx.TensorProto.FLOAT, [[1], [1, 2]], "'x': the lists are not of one length"),
        (onnx.TensorProto.FLOAT, 1.0, r"'x' is FP32\[\]; the model takes"),
    ],
)
def test_what_would_be_lost_is_refused(datatype: int, given: Any, told: str, tmp_path: Path) -> None:
    with (
        triune.load(_identity(datatype, tmp_path), unit="cpu") as loaded,
        pytest.raises(InvalidArgumentError, match=told),
    ):
        loaded.run({"x": given})


def test_a_model_tells_what_it_is_and_is_closed_once(model: Any, tmp_path: Path) -> None:
    loaded = triune.load(_save(model, tmp_path / "model.onnx"), ["ane", "cpu"][1:])
    assert repr(loaded) == "<Model 'model.onnx' on cpu (fp32): x: FP32[2,4] -> y: FP32[2,4]>"
    loaded.close()
    loaded.close()
    assert "closed" in repr(loaded)
    with pytest.raises(triune.UnavailableError, match="'model.onnx' is closed"):
        loaded.run({"x": X})


def test_a_program_in_fp16_says_that_it_computes_in_fp32_on_cpu(tmp_path: Path) -> None:
    path = save_affine(tmp_path, precision="FLOAT16")
    with triune.load(path, "cpu") as loaded:
        assert loaded.precision == "fp32"
        assert "on cpu (fp32, of a program in fp16)" in repr(loaded)
    with triune.load(path, "ane") as loaded:
        assert "on ane (emulated, fp16)" in repr(loaded)


def test_the_package_offers_what_it_names() -> None:
    assert set(triune.__all__) <= set(dir(triune))
    assert all(getattr(triune, name) for name in triune.__all__)
    assert {each.unit for each in triune.units()} == set(Unit)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        triune.nothing  # noqa: B018


def test_one_way_to_name_units_at_a_time(model: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="not both"):
        triune.load(_save(model, tmp_path / "model.onnx"), "cpu", units=["cpu"])


def test_run_and_predict_are_one_method(model: Any, tmp_path: Path) -> None:
    for suffix in (".onnx", ".mlpackage", ".aimodel"):
        path = _save(model, tmp_path / f"m{suffix}")
        loaders = {".mlpackage": triune.coreml.load, ".aimodel": triune.coreai.load}
        for load in (triune.load, *([loaders[suffix]] if suffix in loaders else [])):
            with load(path) as loaded:
                assert isinstance(loaded, triune.Model)
                assert loaded.name == path.name
                assert loaded.output_names == ("y",)
                for answers in (loaded.run({"x": X}), loaded.run({"x": X}, ["y"]), loaded.predict({"x": X.tolist()})):
                    np.testing.assert_array_equal(answers["y"], 2 * X)
                assert loaded.make_state().names == ()
                assert "x: " in repr(loaded)
                with pytest.raises(InvalidArgumentError, match="no output 'q'; it has y"):
                    loaded.run({"x": X}, ["q"])
            assert "closed" in repr(loaded)
            with pytest.raises(triune.UnavailableError, match="is closed; load it again"):
                loaded.predict({"x": X})
            loaded.close()


@pytest.mark.parametrize("unit", ["cpu", "ane"])
def test_programs_with_states(unit: str, tmp_path: Path) -> None:
    path = save_accumulator(tmp_path)
    for load in (lambda: triune.load(path, unit), lambda: triune.coreml.load(path)):
        with load() as loaded:
            state = loaded.make_state()
            for count in (1, 2):
                found = loaded.predict({"x": np.ones((1, 2))}, state)
                assert list(found) == ["y"]
                np.testing.assert_array_equal(found["y"], np.full((1, 2), count))
            np.testing.assert_array_equal(loaded.run({"x": [[1, 1]]}, state=loaded.make_state())["y"], [[1, 1]])
            with pytest.raises(InvalidArgumentError, match="has states .*: give state=model.make_state()"):
                loaded.run({"x": [[1, 1]]})
            other = State({"other": np.zeros(1)}, lambda name, value: value)
            with pytest.raises(InvalidArgumentError, match="state is of another model"):
                loaded.run({"x": [[1, 1]]}, state=other)
    assert triune.predict(path, {"x": [[1, 2]]})["y"].tolist() == [[1, 2]]


@pytest.mark.parametrize("labels", [("ant", "bee", "cat"), (7, 8, 9)])
def test_a_classifier_gives_its_label_and_the_probabilities_by_label(labels: Any, tmp_path: Path) -> None:
    path = save_classifier(tmp_path, labels)
    answers = [triune.predict(path, {"x": [[0, 9, 0]]}, "cpu"), triune.coreml.load(path).predict({"x": [[0, 9, 0]]})]
    for found in answers:
        assert found["classLabel"] == labels[1]
        (probabilities,) = (each for each in found.values() if isinstance(each, dict))
        assert list(probabilities) == list(labels)
        assert probabilities[labels[1]] > 0.99


def test_images_are_pillow_s_or_arrays(tmp_path: Path) -> None:
    path = save_image_model(tmp_path, "BGR")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    with triune.load(path, "cpu") as loaded, triune.coreml.load(path) as other:
        answers = [
            each.predict({"x": given})["y"] for each in (loaded, other) for given in (pixels, Image.fromarray(pixels))
        ]
        for found in answers[1:]:
            np.testing.assert_array_equal(found, answers[0])
        with pytest.raises(InvalidArgumentError, match=r"UINT8\[5,4,3\]; the model takes x: UINT8\[4,5,3\]"):
            loaded.run({"x": Image.fromarray(pixels.transpose(1, 0, 2))})
    with (
        triune.load(_identity(onnx.TensorProto.FLOAT, tmp_path), "cpu") as floats,
        pytest.raises(InvalidArgumentError, match="'x' is a picture; the model takes"),
    ):
        floats.run({"x": Image.fromarray(pixels)})


def test_functions_of_a_program(tmp_path: Path) -> None:
    path = save_functions(tmp_path)
    names = list(triune.coreml.load(path).description.functions)
    found = [triune.predict(path, {"x": np.ones((2, 3), np.float32)}, function=name) for name in names]
    assert len({each["y"].tobytes() for each in found}) == len(names) == 2
    with pytest.raises(triune.TriuneError, match="'third'"):
        triune.load(path, function="third")
    with pytest.raises(InvalidArgumentError, match="leave function out"):
        triune.load(_identity(onnx.TensorProto.FLOAT, tmp_path), function="main")


def test_arrays_of_other_widths_are_converted_for_programs_alone(model: Any, tmp_path: Path) -> None:
    with triune.load(_save(model, tmp_path / "m.mlpackage"), "cpu") as loaded:
        np.testing.assert_array_equal(loaded.run({"x": X.astype(np.float64)})["y"], 2 * X)
        with pytest.raises(InvalidArgumentError, match="holds 1e"):
            loaded.run({"x": np.full((2, 4), 1e300)})


def test_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    _save(model_of(nodes, [("x", FLOAT, [None, 4])], [("y", FLOAT, [None, 4])]), tmp_path / "model.onnx")
    page = (Path(__file__).parents[3] / "docs/python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIUNE_CACHE", str(tmp_path / "cache"))
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    np.testing.assert_array_equal(names["y"], [[2, 4, 6, 8]])
    assert names["done"].verdict is Verdict.RIGHT
