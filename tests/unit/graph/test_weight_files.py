"""Weights that stay in their files: what is loaded, what is made of it, and what other libraries are handed."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from triune.core.errors import InvalidArgumentError
from triune.graph.load import load
from triune.graph.normalize import normalize
from triune.graph.passes.halve import Halve
from triune.graph.verify import OnnxModel
from triune.graph.weight_files import LARGE_BYTES, WeightFile, array_of, with_data

SIZE = 256
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((SIZE, SIZE), np.float32)
GIVEN = RNG.standard_normal((1, SIZE), np.float32)
assert WEIGHT.nbytes > LARGE_BYTES


def as_numbers(name: str) -> TensorProto:
    return helper.make_tensor(name, TensorProto.FLOAT, WEIGHT.shape, WEIGHT.reshape(-1).tolist())


def model_of(*weights: TensorProto, constant: TensorProto | None = None) -> ModelProto:
    """x times each of the weights, one after the other."""
    nodes, value = [], "x"
    if constant is not None:
        nodes.append(helper.make_node("Constant", [], [constant.name], value=constant))
    for place, weight in enumerate((*weights, *([constant] if constant is not None else []))):
        nodes.append(helper.make_node("MatMul", [value, weight.name], [f"y{place}"]))
        value = f"y{place}"
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIZE])]
    outputs = [helper.make_tensor_value_info(value, TensorProto.FLOAT, [1, SIZE])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("is_node", [False, True])
def test_weights_of_bodies_stay_in_the_model_file(is_node: bool, tmp_path: Path) -> None:
    """Two branches of If, whose weights have one name."""

    def branch(name: str, factor: float) -> onnx.GraphProto:
        weight = numpy_helper.from_array(WEIGHT * np.float32(factor), "w")
        nodes = [helper.make_node("Constant", [], ["w"], value=weight)] if is_node else []
        nodes.append(helper.make_node("MatMul", ["x", "w"], [name]))
        result = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIZE])
        return helper.make_graph(nodes, name, [], [result], [] if is_node else [weight])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("t", 1), else_branch=branch("e", 2))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIZE]) for name in "xy")
    graph = helper.make_graph([node], "g", [x, helper.make_tensor_value_info("c", TensorProto.BOOL, [])], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "m.onnx")
    loaded = load(tmp_path / "m.onnx")
    assert loaded.ByteSize() < 2000
    for condition, factor in ((True, 1), (False, 2)):
        found = OnnxModel(loaded).run({"x": GIVEN, "c": np.array(condition)})
        np.testing.assert_allclose(found["y"], GIVEN @ WEIGHT * factor, rtol=1e-4, atol=1e-3)
    assert normalize(loaded).ByteSize() < 4000


def test_weights_of_every_form_stay_in_the_model_file(tmp_path: Path) -> None:
    raw, numbers, constant = numpy_helper.from_array(WEIGHT, "raw"), as_numbers("numbers"), as_numbers("constant")
    onnx.save(model_of(raw, numbers, constant=constant), tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    assert model.ByteSize() < 2000
    assert {tensor.name: tensor.data_location for tensor in model.graph.initializer} == dict.fromkeys(
        ["raw", "numbers", "constant"], TensorProto.EXTERNAL
    )
    for tensor in model.graph.initializer:
        np.testing.assert_array_equal(array_of(tensor), WEIGHT)
    right = GIVEN @ WEIGHT @ WEIGHT @ WEIGHT
    for other in (model, with_data(model), normalize(model)):
        (found,) = OnnxModel(other).run({"x": GIVEN}).values()
        np.testing.assert_allclose(found, right, rtol=1e-3, atol=1e-1)


def test_small_weights_are_in_the_model_and_those_of_graphs_within_become_its_own(tmp_path: Path) -> None:
    """Passes compute with the small ones; ONNX's own code takes no external data in graphs within."""
    body = model_of(numpy_helper.from_array(WEIGHT, "inner")).graph
    del body.input[:]
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    small = numpy_helper.from_array(np.array(True), "c")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIZE])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, SIZE])]
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, outputs, [small]), opset_imports=[helper.make_opsetid("", 21)]
    )
    model.ir_version = 10
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="data", size_threshold=0, convert_attribute=True)
    found = load(path)
    small, *weights = found.graph.initializer
    assert (small.name, small.data_location) == ("c", TensorProto.DEFAULT)
    assert [tensor.data_location for tensor in weights] == [TensorProto.EXTERNAL] * 2
    assert [len(each.g.initializer) for each in found.graph.node[0].attribute] == [0, 0]
    np.testing.assert_array_equal(array_of(weights[0]), WEIGHT)
    np.testing.assert_allclose(OnnxModel(found).run({"x": GIVEN})["y"], GIVEN @ WEIGHT, rtol=1e-4, atol=1e-3)


def test_weights_beside_the_model_are_found_through_symbolic_links(tmp_path: Path) -> None:
    """As Hugging Face's cache keeps all files."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    blob = tmp_path / "blobs" / "model.onnx"
    tensor = numpy_helper.from_array(WEIGHT, "w")
    onnx.save(model_of(tensor), blob, save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    for name in ("model.onnx", "model.onnx_data"):
        (tmp_path / "snapshot" / name).symlink_to(tmp_path / "blobs" / name)
    model = load(tmp_path / "snapshot" / "model.onnx")
    np.testing.assert_array_equal(array_of(model.graph.initializer[0]), WEIGHT)


@pytest.mark.parametrize("is_external", [False, True])
def test_data_of_another_size_than_the_shape_are_refused(tmp_path: Path, is_external: bool) -> None:
    tensor = numpy_helper.from_array(WEIGHT, "w")
    model = model_of(tensor)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=is_external, location="data", size_threshold=0)
    changed = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    changed.graph.initializer[0].dims[0] += 1
    (tmp_path / "m.onnx").write_bytes(changed.SerializeToString())
    with pytest.raises(InvalidArgumentError, match=r"'w' take 262144 bytes.*shape \[257, 256\] takes 263168"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize("size", [70_000, 262_000])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model_of(numpy_helper.from_array(WEIGHT, "w")), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InvalidArgumentError, match="cut short"):
        load(path)


def test_halved_weights_are_in_the_scratch_file_while_it_is_open(tmp_path: Path) -> None:
    onnx.save(model_of(numpy_helper.from_array(WEIGHT, "w")), tmp_path / "m.onnx")
    with WeightFile() as file:
        half = Halve(file=file)(normalize(load(tmp_path / "m.onnx"), file=file))
        (tensor,) = half.graph.initializer
        assert (tensor.data_type, tensor.data_location) == (TensorProto.FLOAT16, TensorProto.EXTERNAL)
        np.testing.assert_array_equal(array_of(tensor), WEIGHT.astype(np.float16))
        place = Path(next(each.value for each in tensor.external_data if each.key == "location"))
        assert place.exists()
    assert not place.exists()


def test_long_lists_of_attributes_are_read_as_they_are(tmp_path: Path) -> None:
    numbers: list[Any] = RNG.standard_normal(50_000).astype(np.float32).tolist()
    model = model_of(numpy_helper.from_array(WEIGHT, "w"))
    node = helper.make_node("Trees", ["x"], ["z"], domain="other", values=numbers)
    model.graph.node.append(node)
    onnx.save(model, tmp_path / "m.onnx")
    (found,) = load(tmp_path / "m.onnx").graph.node[1].attribute
    assert found.type == AttributeProto.FLOATS
    assert list(found.floats) == numbers


def test_weights_of_functions_leave_the_model_once_they_are_constants_of_its_graph(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(WEIGHT, "w"))
    product = helper.make_node("MatMul", ["a", "w"], ["b"])
    function = helper.make_function("own", "Times", ["a"], ["b"], [constant, product], [helper.make_opsetid("", 21)])
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIZE])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, SIZE])]
    graph = helper.make_graph([helper.make_node("Times", ["x"], ["y"], domain="own")], "g", inputs, outputs)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10), tmp_path / "m.onnx")
    with WeightFile() as file:
        (tensor,) = normalize(load(tmp_path / "m.onnx"), file=file).graph.initializer
        assert tensor.data_location == TensorProto.EXTERNAL
        np.testing.assert_array_equal(array_of(tensor), WEIGHT)
