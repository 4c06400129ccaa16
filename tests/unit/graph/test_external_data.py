"""Data beside a model are looked for in its folder only, and in plain files only, wherever a tensor names them."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from triune.core.errors import InvalidArgumentError
from triune.coreml.lowering import LowerOptions
from triune.graph.all_tensors import tensors_of
from triune.graph.load import external_data, has_external_data, load, read_model
from triune.graph.weight_files import array_of
from triune.runtimes.compiled_cache import conversion_digest

VALUES = np.array([1, 2, 3, 4], np.float32)


def _external(location: str = "weights", offset: str = "16", length: str | None = "16") -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    entries = {"location": location, "offset": offset} | ({} if length is None else {"length": length})
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _body(tensor: TensorProto | None = None) -> GraphProto:
    nodes = [helper.make_node("Identity", ["w" if tensor else "x"], ["o"])]
    result = helper.make_tensor_value_info("o", TensorProto.FLOAT, [4])
    return helper.make_graph(nodes, "body", [], [result], [tensor] if tensor else [])


def _model(*nodes: object) -> ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    c = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"]), *nodes], "g", [x, c], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _in_initializer(tensor: TensorProto) -> ModelProto:
    model = _model()
    model.graph.initializer.append(tensor)
    return model


def _in_constant(tensor: TensorProto) -> ModelProto:
    return _model(helper.make_node("Constant", [], ["v"], value=tensor))


def _in_branch(tensor: TensorProto) -> ModelProto:
    return _model(helper.make_node("If", ["c"], ["v"], then_branch=_body(tensor), else_branch=_body()))


def _in_branch_of_a_branch(tensor: TensorProto) -> ModelProto:
    outer = _body()
    outer.node.append(_in_branch(tensor).graph.node[1])
    return _model(helper.make_node("If", ["c"], ["u"], then_branch=outer, else_branch=_body()))


def _in_constant_of_a_branch(tensor: TensorProto) -> ModelProto:
    inner = _body()
    inner.node.append(helper.make_node("Constant", [], ["v"], value=tensor))
    return _model(helper.make_node("If", ["c"], ["u"], then_branch=inner, else_branch=_body()))


def _in_sparse(which: str) -> Callable[[TensorProto], ModelProto]:
    def make(tensor: TensorProto) -> ModelProto:
        model = _model()
        sparse = model.graph.sparse_initializer.add(dims=[4])
        sparse.values.CopyFrom(numpy_helper.from_array(VALUES, "s"))
        sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(4)))
        getattr(sparse, which).CopyFrom(tensor)
        return model

    return make


def _in_sparse_attribute(tensor: TensorProto) -> ModelProto:
    sparse = _in_sparse("values")(tensor).graph.sparse_initializer[0]
    return _model(helper.make_node("Constant", [], ["v"], sparse_value=sparse))


def _in_list(tensor: TensorProto) -> ModelProto:
    return _model(helper.make_node("Own", ["x"], ["v"], domain="own", tensors=[tensor]))


def _in_function(tensor: TensorProto) -> ModelProto:
    model = _model()
    node = helper.make_node("Constant", [], ["o"], value=tensor)
    model.functions.append(helper.make_function("own", "F", [], ["o"], [node], [helper.make_opsetid("", 21)]))
    return model


def _in_default_of_a_function(tensor: TensorProto) -> ModelProto:
    model = _in_function(numpy_helper.from_array(VALUES))
    model.functions[0].attribute_proto.append(helper.make_attribute("a", tensor))
    return model


def _in_training(tensor: TensorProto) -> ModelProto:
    model = _model()
    model.training_info.add().algorithm.CopyFrom(_body(tensor))
    return model


PLACES = (
    _in_initializer,
    _in_constant,
    _in_branch,
    _in_branch_of_a_branch,
    _in_constant_of_a_branch,
    _in_sparse("values"),
    _in_sparse("indices"),
    _in_sparse_attribute,
    _in_list,
    _in_function,
    _in_default_of_a_function,
    _in_training,
)

everywhere = pytest.mark.parametrize("place", PLACES, ids=lambda each: each.__qualname__.strip("_").replace("_", " "))


def _write(model: ModelProto, folder: Path) -> Path:
    (folder / "weights").write_bytes(bytes(16) + VALUES.tobytes())
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


@everywhere
def test_data_are_found_and_count_for_what_is_made_of_them(
    place: Callable[[TensorProto], ModelProto], tmp_path: Path
) -> None:
    path = _write(place(_external()), tmp_path)
    model = read_model(path)
    assert has_external_data(model, path)
    assert external_data(model, path) == {tmp_path / "weights": [(16, 32)]}
    loaded = load(path)
    assert any(np.array_equal(array_of(each), VALUES) for each in tensors_of(loaded) if each.data_type == 1)
    before = conversion_digest(path, LowerOptions())
    (tmp_path / "weights").write_bytes(bytes(15) + b"x" + VALUES.tobytes())
    assert conversion_digest(path, LowerOptions()) == before
    (tmp_path / "weights").write_bytes(bytes(16) + VALUES[::-1].tobytes())
    assert conversion_digest(path, LowerOptions()) != before


@everywhere
@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (_external("/dev/zero"), "outside the model's folder"),
        (_external("/etc/passwd"), "outside the model's folder"),
        (_external("../weights"), "outside the model's folder"),
        (_external("a/../../weights"), "outside the model's folder"),
        (_external("nothing"), "does not exist"),
        (_external(""), "it is a folder|is a folder"),
        (_external("a\0b"), "cannot be read"),
        (_external("x" * 5000), "too long"),
        (_external("pipe"), "is a pipe, not a file"),
        (_external("zeros"), "is a device, not a file"),
        (_external("round"), "symbolic links"),
        (_external("weights", "17"), "end at byte 33 of 'weights', which has 32"),
        (_external("weights", "-1"), "not numbers"),
        (_external("weights", "9" * 5000), "not numbers"),
        (_external("weights", "٣"), "not numbers"),
        (_external("weights", "0", "1e3"), "not numbers"),
    ],
    ids=lambda each: str(each)[:20] if isinstance(each, str) else "",
)
def test_what_is_no_file_of_the_models_folder_is_refused(
    place: Callable[[TensorProto], ModelProto], tensor: TensorProto, why: str, tmp_path: Path
) -> None:
    path = _write(place(tensor), tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "round").symlink_to("round")
    for read in (read_model, load):
        with pytest.raises(InvalidArgumentError, match=why):
            read(path)


def test_a_link_is_followed_as_the_owner_laid_it(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "m").mkdir()
    (tmp_path / "store/weights").write_bytes(VALUES.tobytes())
    (tmp_path / "m/weights").symlink_to(tmp_path / "store/weights")
    (tmp_path / "m/model.onnx").write_bytes(_in_branch(_external(offset="0")).SerializeToString())
    assert any(np.array_equal(array_of(each), VALUES) for each in tensors_of(load(tmp_path / "m/model.onnx")))


def test_pieces_of_a_file_are_joined(tmp_path: Path) -> None:
    model = _model()
    for offset in ("16", "0", "4", "16"):
        model.graph.initializer.append(_external(offset=offset))
    path = _write(model, tmp_path)
    assert external_data(read_model(path), path) == {tmp_path / "weights": [(0, 32)]}
    del model.graph.initializer[1:3]
    path = _write(model, tmp_path)
    assert external_data(read_model(path), path) == {tmp_path / "weights": [(16, 32)]}
