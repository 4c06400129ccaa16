"""What passes between the pieces of a graph, and what they share."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.graphs import model_of
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.inference import infer_shapes
from triune.graph.load import load
from triune.graph.piece_folder import PieceFolder
from triune.graph.split import split
from triune.graph.weight_files import array_of

CHAIN = """g (float[rows,4] x) => (float[rows,4] middle, float[rows,4] y) {
    a = Neg(x)
    middle = Abs(a)
    b = Tanh(middle)
    y = Add(b, a) }"""


def inferred(text: str) -> onnx.ModelProto:
    return infer_shapes(model_of(text, opset=21))


def test_values_that_pass_are_outputs_and_inputs_with_their_free_dimensions() -> None:
    first, second = split(inferred(CHAIN), [2])
    assert (first.inputs, first.outputs) == (("x",), ("a", "middle"))
    assert (second.inputs, second.outputs) == (("a", "middle"), ("y",))
    for value in second.model.graph.input:
        rows, columns = value.type.tensor_type.shape.dim
        assert (rows.dim_param, columns.dim_value) == ("rows", 4)


def test_a_piece_that_nothing_reads_is_left_out() -> None:
    text = "g (float[2] x) => (float[2] y) { unread = Neg(x)  y = Abs(x) }"
    pieces = split(inferred(text), [1])
    assert [(each.begin, each.outputs) for each in pieces] == [(1, ("y",))]


@pytest.mark.parametrize("borders", [[0], [4], [2, 2], [3, 1]])
def test_borders_are_ascending_positions(borders: list[int]) -> None:
    with pytest.raises(InvalidArgumentError, match="ascending positions of nodes, 1 to 3"):
        split(inferred(CHAIN), borders)


def test_no_sequence_passes() -> None:
    text = "g (float[2] x) => (float[2] y) <int64 at = {0}> { s = SequenceConstruct(x)  y = SequenceAt(s, at) }"
    with pytest.raises(UnsupportedError, match="'s', the result of SequenceConstruct.*is no tensor; cut elsewhere"):
        split(inferred(text), [1])


def test_a_value_without_a_type_is_named() -> None:
    with pytest.raises(UnsupportedError, match="'a', the result of Neg.*has no known type"):
        split(model_of(CHAIN, opset=21), [1])


def test_what_no_node_computes_is_given_by_the_last_piece() -> None:
    model = inferred("g (float[2] x) => (float[2] y) { a = Neg(x)  y = Abs(a) }")
    model.graph.output.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]))
    first, last = split(model, [1])
    assert first.outputs == ("a",)
    assert (last.inputs, last.outputs) == (("x", "a"), ("y", "x"))


def test_an_input_with_a_default_keeps_it() -> None:
    model = inferred("g (float[2] x, float[2] shift) => (float[2] y) { a = Neg(x)  y = Add(a, shift) }")
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "shift"))
    first, last = split(model, [1])
    assert first.inputs == ("x",)
    assert last.inputs == ("shift", "a")
    assert [each.name for each in last.model.graph.initializer] == ["shift"]


def test_pieces_share_the_bytes_of_a_large_weight(tmp_path: Path) -> None:
    weight = np.arange(160 * 160, dtype=np.float32).reshape(160, 160)
    model = inferred("g (float[2,160] x, float[160,160] w) => (float[2,160] y) { a = MatMul(x, w)  y = MatMul(a, w) }")
    del model.graph.input[1]
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    light = load(path)
    pieces = split(light, [1])
    places = {tuple((e.key, e.value) for e in each.model.graph.initializer[0].external_data) for each in pieces}
    assert len(places) == 1
    assert str(path) in dict(places.pop()).values()
    folder = tmp_path / "pieces"
    folder.mkdir()
    files = PieceFolder(folder)
    saved = [files.save(each) for each in pieces]
    assert sorted(each.name for each in folder.iterdir()) == ["piece-0.onnx", "piece-1.onnx", "weights-0"]
    # The bytes are there once, and stay when the model is replaced.
    assert (folder / "weights-0").samefile(path)
    path.unlink()
    for each in saved:
        (found,) = load(each).graph.initializer
        np.testing.assert_array_equal(array_of(found), weight)


def test_weights_are_copied_once_where_they_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr("os.link", refuse)
    weight = np.ones((160, 160), np.float32)
    model = inferred("g (float[2,160] x, float[160,160] w) => (float[2,160] y) { a = MatMul(x, w)  y = MatMul(a, w) }")
    del model.graph.input[1]
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    folder = tmp_path / "pieces"
    folder.mkdir()
    files = PieceFolder(folder)
    saved = [files.save(each) for each in split(load(path), [1])]
    assert len(list(folder.glob("weights-*"))) == 1
    np.testing.assert_array_equal(array_of(load(saved[1]).graph.initializer[0]), weight)
