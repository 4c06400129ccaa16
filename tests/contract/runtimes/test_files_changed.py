"""A model's files, cut short and overwritten while it is loaded: its answers are those of the files as they were."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from contract.runtimes.conftest import Bench
from contract.runtimes.models import model, node, tensor
from triune.core.datatypes import Array, DataType

SIZE = 1 << 18
WEIGHTS = np.arange(SIZE, dtype=np.float32) / SIZE


def table() -> ModelProto:
    """The i-th of many weights, which no runtime packs anew; some of them twice, and one of few bytes."""
    return model(
        [
            node("Gather", "w i", "a"),
            node("Gather", "v i", "b"),
            node("Mul", "a b", "c"),
            node("Mul", "c s", "y"),
        ],
        [tensor("i", ["n"], DataType.INT32)],
        [tensor("y", ["n"])],
        {"w": WEIGHTS, "v": 2 * WEIGHTS, "s": np.array([0.5], np.float32)},
    )


def save_beside(folder: Path, location: str) -> Path:
    path = folder / "model.onnx"
    (folder / location).parent.mkdir(exist_ok=True)
    onnx.save_model(table(), path, save_as_external_data=True, location=location, size_threshold=0)
    assert (folder / location).stat().st_size > 2 * WEIGHTS.nbytes
    return path


@pytest.mark.parametrize("location", ["weights.bin", "data/weights.bin"])
def test_weights_beside_the_model(bench: Bench, location: str) -> None:
    path = save_beside(bench.folder, location)
    executable = bench.load(path)
    places = np.array([SIZE - 1, SIZE // 2, 3], np.int32)

    def answer() -> Array:
        return executable.run({"i": places}, ["y"])["y"]

    expected = WEIGHTS[places] ** 2
    np.testing.assert_allclose(answer(), expected, rtol=2e-2)
    before = answer()
    weights = bench.folder / location
    content = weights.read_bytes()
    with weights.open("r+b") as file:
        file.truncate(100)
    np.testing.assert_array_equal(answer(), before)
    with weights.open("r+b") as file:
        file.write(bytes(len(content)))
    np.testing.assert_array_equal(answer(), before)
    np.testing.assert_array_equal(bench.load(path).run({"i": places}, ["y"])["y"], np.zeros(3))


def test_the_model_itself(bench: Bench) -> None:
    path = bench.save(table())
    executable = bench.load(path)
    given = {"i": np.array([SIZE - 1], np.int32)}
    before = executable.run(given, ["y"])["y"]
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(100)
    np.testing.assert_array_equal(executable.run(given, ["y"])["y"], before)
    path.write_bytes(bytes(len(content)))
    np.testing.assert_array_equal(executable.run(given, ["y"])["y"], before)


def test_weights_of_a_body(bench: Bench) -> None:
    text = """g (int32[n] i, bool c) => (float[n] y) {
        y = If(c) <then_branch = t () => (float[n] a) { a = Gather(w, i) },
                   else_branch = e () => (float[n] b) { b = Gather(w, i) }> }"""
    built = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    for attribute in built.graph.node[0].attribute:
        attribute.g.initializer.append(numpy_helper.from_array(WEIGHTS, "w"))
    path = bench.folder / "bodies.onnx"
    for branch in built.graph.node[0].attribute:
        (weights,) = branch.g.initializer
        (bench.folder / f"{branch.name}.bin").write_bytes(weights.raw_data)
        weights.ClearField("raw_data")
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=f"{branch.name}.bin")
    path.write_bytes(built.SerializeToString())
    executable = bench.load(path)
    given = {"i": np.array([SIZE - 1, 5], np.int32), "c": np.array(True)}
    before = executable.run(given, ["y"])["y"]
    np.testing.assert_allclose(before, WEIGHTS[[SIZE - 1, 5]], rtol=2e-2)
    with (bench.folder / "then_branch.bin").open("r+b") as file:
        file.truncate(100)
    np.testing.assert_array_equal(executable.run(given, ["y"])["y"], before)
