"""Samples of users: right ones, and each way in which they are wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from support.compressible import matrix, model_of, perceptron
from triune.compression.samples import made_up, read_samples
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError


def two_inputs() -> ModelProto:
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"])]
    kinds = {"a": (TensorProto.FLOAT, [2, 4]), "b": (TensorProto.FLOAT, [4, 3])}
    return model_of(nodes, kinds, ["y"], {})


def test_the_first_axis_counts_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=matrix(10, 64))
    found = read_samples(tmp_path / "x.npz", perceptron())
    # Each fourth sample is kept from calibration.
    assert [len(found.calibration), len(found.comparison)] == [7, 3]
    assert found.comparison[1]["x"].shape == (1, 64)
    assert np.array_equal(found.comparison[1]["x"][0], matrix(10, 64)[4])
    assert not found.is_made_up


def test_few_samples_are_used_for_both(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros((3, 2, 4), np.float32), b=np.zeros((3, 4, 3), np.float32))
    found = read_samples(tmp_path / "x.npz", two_inputs())
    assert [len(found.calibration), len(found.comparison)] == [3, 3]


def test_a_folder_has_a_file_for_each_sample(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    np.save(folder / "1.npy", matrix(5, 64))
    np.savez(folder / "2.npz", x=matrix(2, 64))
    found = read_samples(folder, perceptron())
    assert [each["x"].shape for each in found.comparison] == [(5, 64), (2, 64)]


def test_made_up_samples_are_the_same_each_time() -> None:
    one, other = made_up(perceptron(), {}), made_up(perceptron(), {})
    assert one.is_made_up
    for first, second in zip(one.comparison, other.comparison, strict=True):
        assert np.array_equal(first["x"], second["x"])


def test_made_up_samples_are_those_that_the_model_takes() -> None:
    # It takes three rows alone.
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    kinds = {"x": (TensorProto.FLOAT, ["n", 2])}
    model = model_of(nodes, kinds, ["y"], {"shape": np.array([3, 2])})
    found = made_up(model, {})
    assert found.comparison
    assert {each["x"].shape for each in found.comparison} == {(3, 2)}
    never = model_of(nodes, kinds, ["y"], {"shape": np.array([7, 11])})
    with pytest.raises(UnsupportedError, match="no inputs can be made up that the model takes: .*--calibrate"):
        made_up(never, {})


NAN = matrix(4, 64)
NAN[2, 2] = np.nan

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"z": matrix(4, 64)}, "the samples have 'z', and the model has the inputs x"),
    ({"x": matrix(4, 64).astype(np.float64)}, "'x' is given as float64; the model takes float32"),
    ({"x": matrix(4, 65)}, "has shape \\[1, 65\\]"),
    ({"x": matrix(4, 64)[0]}, "has 1 axes"),
    ({"x": NAN}, "sample 2 of .*: input 'x' has NaN or infinities"),
    ({"x": matrix(0, 64)}, "has no samples"),
    ({"x": np.zeros((3, 0, 64), np.float32)}, "input 'x' is empty"),
    ({}, "has no samples"),
]


@pytest.mark.parametrize(("arrays", "message"), WRONG)
def test_wrong_samples_are_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InvalidArgumentError, match=message):
        read_samples(tmp_path / "x.npz", perceptron())


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no samples"):
        read_samples(tmp_path / "x.npz", perceptron())
    (tmp_path / "x.npz").write_bytes(b"PK, but no zip")
    with pytest.raises(InvalidArgumentError, match="cannot read samples"):
        read_samples(tmp_path / "x.npz", perceptron())
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(InvalidArgumentError, match="an .npz or a folder"):
        read_samples(tmp_path / "x.txt", perceptron())
    np.savez(tmp_path / "y.npz", a=np.zeros((3, 2, 4), np.float32), b=np.zeros((2, 4, 3), np.float32))
    with pytest.raises(InvalidArgumentError, match="different numbers of samples"):
        read_samples(tmp_path / "y.npz", two_inputs())
    np.savez(tmp_path / "z.npz", a=np.zeros((3, 2, 4), np.float32))
    with pytest.raises(InvalidArgumentError, match="has no 'b'"):
        read_samples(tmp_path / "z.npz", two_inputs())
    np.savez(tmp_path / "w.npz", a=np.zeros((3, 4), np.float32), b=np.zeros((4, 3), np.float32))
    with pytest.raises(InvalidArgumentError, match="has 3 rows .* takes 2 at once"):
        read_samples(tmp_path / "w.npz", two_inputs())
