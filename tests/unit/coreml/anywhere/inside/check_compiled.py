"""Compiled folders and assets, from disk and from memory; specification versions."""

import shutil
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools import libcoremlpython
from coremltools.models import CompiledMLModel
from coremltools.models.model import MLModelAsset
from coremltools.models.utils import compile_model

import triune.coreml
from support.compiled_models import assert_same, compile_package
from triune.coreml.mil_text import read_text
from triune.coreml.read_program import read_program
from triune.coreml.weights import FolderWeights

X = np.array([[1, -2, 3, 0.5]], np.float32)
PROXY: Any = libcoremlpython._MLModelProxy


def test_compile_move_and_load(package: Path, layers: Any, tmp_path: Path) -> None:
    target = tmp_path / "moved.mlmodelc"
    assert compile_model(str(package), str(target)) == str(target)
    assert sorted(each.name for each in target.iterdir()) == [
        "model.mil",
        "model.mlmodel",
        "triune.json",
        "weights",
    ]
    proto = read_text((target / "model.mil").read_text(), "model.mil")
    program = read_program(proto, FolderWeights(target, target), "model.mil")
    assert_same(program, triune.coreml.package.read_package(target).program)
    want = layers.predict({"x": X})["y"]
    np.testing.assert_array_equal(CompiledMLModel(str(target)).predict({"x": X})["y"], want)
    np.testing.assert_array_equal(triune.coreml.load(target).predict({"x": X})["y"], want)


def test_the_compiled_path_of_a_model_lives_as_long_as_it(package: Path) -> None:
    model = ct.models.MLModel(str(package))
    path = Path(model.get_compiled_model_path())
    assert path.suffix == ".mlmodelc"
    assert model.get_compiled_model_path() == str(path)
    assert CompiledMLModel(str(path)).predict({"x": X})["y"].shape == (1, 2048)
    del model
    assert not path.exists()


def test_a_compiled_folder_is_its_own_compiled_path(package: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "a.mlmodelc")
    compile_model(str(package), target)
    assert CompiledMLModel(target)._proxy.get_compiled_model_path() == target


def test_what_core_ml_compiled(package: Path, layers: Any, tmp_path: Path) -> None:
    theirs = compile_package(package, tmp_path / "theirs.mlmodelc")
    want = layers.predict({"x": X})["y"]
    model = CompiledMLModel(str(theirs))
    np.testing.assert_array_equal(model.predict({"x": X})["y"], want)
    assert model._proxy.get_compiled_model_path() == str(theirs)
    asset = CompiledMLModel.from_asset(MLModelAsset.from_path(str(theirs)))
    np.testing.assert_array_equal(asset.predict({"x": X})["y"], want)
    copied = PROXY.compileModel(str(theirs))
    try:
        assert sorted(each.name for each in Path(copied).iterdir()) == sorted(each.name for each in theirs.iterdir())
    finally:
        shutil.rmtree(Path(copied).parent)


def test_states_of_a_compiled_model(counter: Any) -> None:
    model = CompiledMLModel(counter.get_compiled_model_path())
    state = model.make_state()
    assert [model.predict({"x": np.ones(2)}, state)["y"][0] for _ in range(3)] == [1, 2, 3]


def test_a_specification_alone_compiles() -> None:
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec(shape=(2,))])
    def program(x):
        return mb.relu(x=x, name="y")

    path = compile_model(ct.convert(program, convert_to="mlprogram").get_spec())
    try:
        assert CompiledMLModel(path).predict({"x": np.array([-1, 1])})["y"].tolist() == [0, 1]
    finally:
        shutil.rmtree(Path(path).parent)


def test_assets(package: Path, layers: Any, tmp_path: Path) -> None:
    target = str(tmp_path / "a.mlmodelc")
    compile_model(str(package), target)
    weights = next(package.rglob("weight.bin")).read_bytes()
    specification = layers.get_spec().SerializeToString()
    want = layers.predict({"x": X})["y"]
    for asset in (
        MLModelAsset.from_path(target),
        MLModelAsset.from_memory(specification, {"weights/weight.bin": weights}),
    ):
        model = CompiledMLModel.from_asset(asset)
        np.testing.assert_array_equal(model.predict({"x": X})["y"], want)


def test_wrong_models_are_runtime_errors(package: Path, tmp_path: Path, layers: Any) -> None:
    with pytest.raises(RuntimeError, match="no Core ML package at"):
        CompiledMLModel(str(tmp_path / "none.mlmodelc"))
    theirs = tmp_path / "theirs.mlmodelc"
    theirs.mkdir()
    (theirs / "coremldata.bin").write_bytes(b"x")
    with pytest.raises(RuntimeError, match="only Core ML itself reads that form"):
        CompiledMLModel(str(theirs))
    with pytest.raises(RuntimeError, match=r"is not an \.mlmodelc"):
        MLModelAsset.from_path(str(package))
    with pytest.raises(RuntimeError, match="weight file"):
        MLModelAsset.from_memory(layers.get_spec().SerializeToString(), {"weights/weight.bin": b"short"})
    with pytest.raises(RuntimeError, match="not a Core ML specification"):
        MLModelAsset.from_memory(b"\xff\xff")
    with pytest.raises(RuntimeError, match="there are no compute units 'TPU'"):
        PROXY(str(package), "TPU", "", {}, None)
    asset = MLModelAsset.from_memory(layers.get_spec().SerializeToString(), {"weight.bin": _weights(package)})
    with pytest.raises(RuntimeError, match="loaded from memory"):
        CompiledMLModel.from_asset(asset)._proxy.get_compiled_model_path()


def _weights(package: Path) -> bytes:
    return next(package.rglob("weight.bin")).read_bytes()


def test_links_out_of_a_package_are_not_followed(package: Path, tmp_path: Path) -> None:
    copy = tmp_path / "linked.mlpackage"
    shutil.copytree(package, copy)
    weight = next(copy.rglob("weight.bin"))
    outside = tmp_path / "outside.bin"
    weight.rename(outside)
    weight.symlink_to(outside)
    with pytest.raises(RuntimeError, match="leads out of it"):
        compile_model(str(copy))


def test_the_lowest_specification_version(layers: Any, counter: Any) -> None:
    specification = layers.get_spec()
    assert specification.specificationVersion == 8
    specification.specificationVersion = 10
    again = type(specification)()
    again.ParseFromString(PROXY.auto_set_specification_version(specification.SerializeToString()))
    assert again.specificationVersion == 8
    assert PROXY.auto_set_specification_version(specification).specificationVersion == 8
    assert specification.specificationVersion == 10
    assert PROXY.auto_set_specification_version(counter.get_spec()).specificationVersion == 9
    assert PROXY.maximum_supported_specification_version() == 10
    empty = type(specification)()
    with pytest.raises(RuntimeError, match="only of an ML Program"):
        PROXY.auto_set_specification_version(empty)
    with pytest.raises(RuntimeError, match="not a Core ML specification"):
        PROXY.auto_set_specification_version(b"\xff\xff")


def test_save_spec_sets_the_version(layers: Any, tmp_path: Path, package: Path) -> None:
    specification = layers.get_spec()
    specification.specificationVersion = 10
    path = str(tmp_path / "lowered.mlpackage")
    weights = str(next(package.rglob("weight.bin")).parent)
    ct.utils.save_spec(specification, path, auto_set_specification_version=True, weights_dir=weights)
    assert ct.utils.load_spec(path).specificationVersion == 8
