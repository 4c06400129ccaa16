"""What a package says of its source."""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from onnx import helper

from support.lowered import FLOAT, model_of, save_renamed
from support.mil_models import save_affine
from triune import coreml
from triune.core.errors import InvalidArgumentError
from triune.coreml.lowering import lower
from triune.coreml.package import Package, read_package
from triune.coreml.source import SOURCE_KEY, Source, SourceTensor, read_source


def test_a_conversion_tells_names_and_ranks(tmp_path: Path) -> None:
    assert read_source(read_package(save_renamed(tmp_path))) == Source(
        {"in_x_0": SourceTensor("in/x:0", 2), "plain": SourceTensor("plain", 2)},
        {"out_y_0": SourceTensor("out/y:0", 2)},
    )


def test_a_loaded_model_has_the_names_and_takes_either(tmp_path: Path) -> None:
    model = coreml.load(save_renamed(tmp_path), executor="reference")
    assert model.source_names == {"in_x_0": "in/x:0", "out_y_0": "out/y:0"}
    signature = model.signature
    assert [spec.name for spec in signature.inputs] == ["in_x_0", "plain"]
    shapes = {spec.name: spec.shape for spec in signature.inputs}
    x, plain = (np.full(shapes[name], 3, signature.inputs[0].datatype.dtype) for name in ("in_x_0", "plain"))
    right = model.predict({"in_x_0": x, "plain": plain})
    np.testing.assert_array_equal(model.predict({"in/x:0": x, "plain": plain})["out_y_0"], right["out_y_0"])
    with pytest.raises(InvalidArgumentError, match="'in_x_0' is given twice, once as 'in/x:0'"):
        model.predict({"in_x_0": x, "in/x:0": x, "plain": plain})
    with pytest.raises(InvalidArgumentError, match="has no input 'out/y:0'"):
        model.predict({"in_x_0": x, "plain": plain, "out/y:0": x})


def test_a_scalar_of_the_source_is_taken_as_it_was(tmp_path: Path) -> None:
    """Core ML has no arrays of rank 0, and a program has one number there; where the source has one number in an array,
    nothing else is taken.
    """
    nodes = [helper.make_node("Sub", ["scalar", "single"], ["total"])]
    inputs = [("scalar", FLOAT, ()), ("single", FLOAT, (1,))]
    lower(model_of(nodes, inputs, [("total", FLOAT, (1,))]), tmp_path / "sub.mlpackage")
    model = coreml.load(tmp_path / "sub.mlpackage", executor="reference")
    one = np.array([1], np.float32)
    for given in (np.array(5, np.float32), np.float32(5), 5, 5.0, np.array([5], np.float32)):
        np.testing.assert_array_equal(model.predict({"scalar": given, "single": one})["total"], [4])
    with pytest.raises(InvalidArgumentError, match=r"'single' has shape \[\]; it must have \[1\]"):
        model.predict({"scalar": 5, "single": 1})


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return read_package(save_affine(tmp_path_factory.mktemp("affine")))


def test_packages_of_others_tell_nothing(other: Package) -> None:
    assert read_source(other) == Source()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '{"inputs": {}}',
        '{"inputs": [], "outputs": {}}',
        '{"inputs": {"x": {}}, "outputs": {}}',
        '{"inputs": {"x": {"source": 3}}, "outputs": {}}',
        '{"inputs": {"x": {"source": "x", "rank": "2"}}, "outputs": {}}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_what_no_conversion_writes_is_refused(other: Package, text: str) -> None:
    metadata = MappingProxyType({SOURCE_KEY: text})
    package = replace(other, description=replace(other.description, metadata=metadata))
    with pytest.raises(InvalidArgumentError, match=r"'triune.source' of '.*' are not what a conversion writes.*again"):
        read_source(package)
