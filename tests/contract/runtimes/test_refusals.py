"""Files that are no models, options that nobody knows, and inputs that a model cannot compute."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from contract.runtimes.conftest import Bench
from contract.runtimes.models import add_sub, dense, identity, matmul, model, node, tensor
from triune.core.datatypes import DataType
from triune.core.errors import InvalidArgumentError, TriuneError, UnsupportedError
from triune.core.tensors import TensorSpec
from triune.core.units import Unit

GOOD = identity().SerializeToString()


def test_the_signature_is_the_files(bench: Bench) -> None:
    path = bench.save(matmul())
    signature = bench.runtime.inspect(path)
    assert signature == bench.load(path).signature
    assert signature.inputs == (
        TensorSpec("a", DataType.FP32, (-1, -1), ("rows", "inner")),
        TensorSpec("b", DataType.FP32, (-1, -1), ("inner", "columns")),
    )
    assert signature.outputs == (TensorSpec("c", DataType.FP32, (-1, -1), ("rows", "columns")),)


def test_what_an_executable_says_of_itself(bench: Bench) -> None:
    executable = bench.load(identity())
    assert executable.unit is bench.unit
    assert executable.precision == ("bf16" if bench.unit is Unit.AMX else "fp32")
    assert bench.unit in bench.runtime.units()
    assert bench.runtime.default_filenames == ("model.onnx",)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_shapes_that_do_not_go_together(bench: Bench, num_threads: int) -> None:
    # OpenVINO with one thread and one stream would answer with an empty or stale output here.
    executable = bench.load(matmul(), num_threads=num_threads)
    ones = np.ones((3, 4), np.float32)
    for size in (2, 7, 2, 33):
        with pytest.raises(InvalidArgumentError, match=r"(?i)shape|dimension"):
            executable.run({"a": ones, "b": ones}, ["c"])
        # A refused call must leave nothing behind: OpenVINO in bf16 would go on refusing by the old shapes.
        for _ in range(3):
            good = {"a": ones, "b": np.ones((4, size), np.float32)}
            assert executable.run(good, ["c"])["c"].tolist() == [[4] * size] * 3


@pytest.mark.parametrize("num_threads", [1, 2])
def test_shapes_that_go_wrong_deep_inside(bench: Bench, num_threads: int) -> None:
    built = model(
        [node("Neg", "x", "h"), node("Concat", "h y", "z", axis=0), node("Neg", "z", "out")],
        [tensor("x", ("n", "k")), tensor("y", ("m", "l"))],
        [tensor("out", ("o", "p"))],
    )
    executable = bench.load(built, num_threads=num_threads)
    with pytest.raises(InvalidArgumentError):
        executable.run({"x": np.ones((2, 3), np.float32), "y": np.ones((2, 4), np.float32)}, ["out"])


def test_a_missing_input(bench: Bench) -> None:
    executable = bench.load(matmul())
    with pytest.raises(InvalidArgumentError, match="b"):
        executable.run({"a": np.ones((3, 4), np.float32)}, ["c"])


@pytest.mark.parametrize("shape", [(4,), (4, 4, 4), ()], ids=str)
def test_a_wrong_rank(bench: Bench, shape: tuple[int, ...]) -> None:
    executable = bench.load(add_sub(DataType.FP32))
    inputs = {"INPUT0": np.ones(shape, np.float32), "INPUT1": np.ones((1, 16), np.float32)}
    if bench.name == "reference" and shape == ():
        # numpy broadcasts, and the evaluator does not compare inputs with the signature: the server has done so.
        assert executable.run(inputs, ["OUTPUT0"])["OUTPUT0"].shape == (1, 16)
        return
    with pytest.raises(InvalidArgumentError):
        executable.run(inputs, ["OUTPUT0"])


def test_an_index_out_of_bounds(bench: Bench) -> None:
    built = model(
        [node("Gather", "x i", "y")], [tensor("x", ("n",)), tensor("i", ("m",), DataType.INT64)], [tensor("y", ("m",))]
    )
    executable = bench.load(built)
    inputs = {"x": np.arange(4, dtype=np.float32), "i": np.array([99])}
    if bench.is_openvino:
        # OpenVINO's Gather gives 0 there and cannot be told otherwise; its adapter's docstring says so.
        assert executable.run(inputs, ["y"])["y"].tolist() == [0]
        return
    with pytest.raises(InvalidArgumentError, match="out of"):
        executable.run(inputs, ["y"])


def test_more_memory_than_there_is(bench: Bench) -> None:
    built = model([node("ConstantOfShape", "s", "y")], [tensor("s", (3,), DataType.INT64)], [tensor("y", (None,) * 3)])
    executable = bench.load(built)
    # OpenVINO looks at the dimensions before it asks for memory.
    with pytest.raises(
        InvalidArgumentError, match="" if bench.is_openvino else r"this machine has \d+ bytes of memory"
    ):
        executable.run({"s": np.array([2**20, 2**20, 2**10])}, ["y"])
    assert executable.run({"s": np.array([1, 2, 3])}, ["y"])["y"].shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "empty"),
        (b"hello, I am a text file\n", "not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90\n", "git lfs pull"),
        (GOOD[:-20], "cut short"),
        (GOOD[: len(GOOD) // 2], "cut short"),
        (bytes(range(256)) * 16, "not an ONNX model"),
        (b"\x00" * 64, "not an ONNX model"),
        (model([node("Identity", "x", "y")], [], [], opset=21).SerializeToString(), "no outputs"),
        (model([], [tensor("x", (1,))], [tensor("y", (1,))], opset=999).SerializeToString(), "operator set 999"),
        (b"PK\x03\x04" + b"\x11" * 100, "not an ONNX model"),
    ],
    ids=["empty", "text", "git-lfs", "cut", "half", "noise", "zeros", "no-outputs", "opset", "zip"],
)
def test_files_that_are_no_models(bench: Bench, content: bytes, cause: str) -> None:
    path = bench.folder / "broken.onnx"
    path.write_bytes(content)
    for attempt in (bench.runtime.inspect, bench.load):
        with pytest.raises(InvalidArgumentError, match=rf"broken\.onnx'.*{cause}"):
            attempt(path)


def test_a_file_cut_anywhere_is_refused(bench: Bench) -> None:
    content = add_sub().SerializeToString()
    path = bench.folder / "cut.onnx"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises((InvalidArgumentError, UnsupportedError), match=r"cut\.onnx"):
            bench.load(path)


def test_a_file_that_is_not_there(bench: Bench) -> None:
    for path in (bench.folder / "nowhere.onnx", bench.folder):
        for attempt in (bench.runtime.inspect, bench.load):
            with pytest.raises(InvalidArgumentError, match="cannot be read"):
                attempt(path)


def test_a_graph_that_makes_no_sense(bench: Bench) -> None:
    for built in (
        model([node("Neg", "nobody", "y")], [tensor("x", (1,))], [tensor("y", (1,))]),
        model([node("Neg", "x", "h")], [tensor("x", (1,))], [tensor("y", (1,))]),
    ):
        path = bench.save(built)
        if bench.name == "reference":
            # The evaluator looks at a node only when it runs it.
            executable = bench.load(path)
            with pytest.raises(TriuneError):
                executable.run({"x": np.ones(1, np.float32)}, ["y"])
            continue
        with pytest.raises(InvalidArgumentError, match=path.name):
            bench.load(path)


def test_an_operator_that_nobody_knows(bench: Bench) -> None:
    built = model([node("Frobnicate", "x", "y", domain="nobody")], [tensor("x", (1,))], [tensor("y", (1,))])
    built.opset_import.append(helper.make_opsetid("nobody", 1))
    path = bench.save(built)
    assert bench.runtime.inspect(path).outputs[0].name == "y"
    with pytest.raises((UnsupportedError, InvalidArgumentError), match="Frobnicate"):
        bench.load(path)


def test_external_data(bench: Bench) -> None:
    path = bench.folder / "large.onnx"
    onnx.save_model(dense(8), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = np.ones((1, 8), np.float32)
    np.testing.assert_allclose(bench.load(path).run({"x": x}, ["y"])["y"], x)

    weights = bench.folder / "weights.bin"
    content = weights.read_bytes()
    weights.write_bytes(content[:100])
    for attempt in (bench.runtime.inspect, bench.load):
        with pytest.raises(InvalidArgumentError, match=r"large\.onnx.*'w' end at byte 256 of 'weights\.bin'.*100"):
            attempt(path)
    weights.unlink()
    for attempt in (bench.runtime.inspect, bench.load):
        with pytest.raises(InvalidArgumentError, match=r"large\.onnx.*'weights\.bin'.*does not exist"):
            attempt(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin"])
def test_external_data_outside_the_models_folder(bench: Bench, location: str) -> None:
    folder = bench.folder / "inner"
    folder.mkdir()
    path = folder / "large.onnx"
    onnx.save_model(dense(8), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (folder / "weights.bin").rename(bench.folder / "weights.bin")
    built = onnx.load_model(path, load_external_data=False)
    next(entry for entry in built.graph.initializer[0].external_data if entry.key == "location").value = location
    path.write_bytes(built.SerializeToString())
    for attempt in (bench.runtime.inspect, bench.load):
        with pytest.raises(InvalidArgumentError, match="outside the model's folder"):
            attempt(path)


def test_unknown_options(bench: Bench) -> None:
    with pytest.raises(
        InvalidArgumentError, match=rf"backend '{bench.name}' knows no parameter 'frobnicate'; it knows"
    ):
        bench.load(identity(), frobnicate="1")


@pytest.mark.parametrize("unit", [unit for unit in Unit if unit is not Unit.CPU])
def test_units_that_it_cannot_use(bench: Bench, unit: Unit) -> None:
    if unit in bench.runtime.units():
        pytest.skip(f"{bench.name} runs on {unit.value} here")
    path = bench.save(identity())
    with pytest.raises(UnsupportedError, match=f"'{unit.value}'"):
        bench.runtime.load(path, unit=unit, num_threads=1, options={})


def test_paths_with_spaces_and_letters(bench: Bench) -> None:
    folder = bench.folder / "mit Ümlaut und 空白"
    folder.mkdir()
    path = Path(folder / "modèle.onnx")
    path.write_bytes(GOOD)
    assert bench.load(path).run({"x": np.ones(1, np.float32)}, ["y"])["y"].tolist() == [1]
