"""Reading packages: what is in a good one, and what is said of a bad one."""

import json
import os
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.mil_programs import make_specification, mb
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.coreml.mil import DType, Name, TensorType
from triune.coreml.package import read_package, read_specification

WEIGHT = np.arange(96, dtype=np.float32).reshape(4, 24)
MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """relu(x times WEIGHT) on disk."""
    specification, weights = make_specification(
        lambda given: mb.relu(x=mb.matmul(x=given.x, y=WEIGHT), name="y"), {"x": np.zeros((2, 4), np.float32)}
    )
    path = tmp_path_factory.mktemp("packages") / "good.mlpackage"
    (path / WEIGHTS).parent.mkdir(parents=True)
    (path / MODEL).write_bytes(specification.SerializeToString())
    (path / WEIGHTS).write_bytes(weights["weight.bin"])
    items = {"1": {"path": str(MODEL.relative_to("Data")), "name": "model.mlmodel", "author": "", "description": ""}}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": items, "rootModelIdentifier": "1"}
    (path / "Manifest.json").write_text(json.dumps(manifest))
    return path


@pytest.fixture
def package(good: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(good, tmp_path / "spoiled.mlpackage"))


def spoil(package: Path, change: Any) -> None:
    from triune.coreml.protos import model_pb2

    proto = model_pb2().Model.FromString((package / MODEL).read_bytes())
    change(proto)
    (package / MODEL).write_bytes(proto.SerializeToString())


def block_of(proto: Any) -> Any:
    return proto.mlProgram.functions["main"].block_specializations["CoreML5"]


def operation_of(proto: Any, kind: str) -> Any:
    return next(each for each in block_of(proto).operations if each.type == kind)


def test_a_package_is_read(good: Path) -> None:
    package = read_package(good)
    assert package.path == good
    assert package.specification_version == 6
    assert package.size_bytes == sum((good / each).stat().st_size for each in (MODEL, WEIGHTS))
    function = package.function()
    assert [each.name for each in function.inputs] == ["x"]
    assert function.inputs[0].type == TensorType(DType.FP32, (2, 4))
    product = next(each for each in function.block.operations if each.op == "matmul")
    assert product.inputs["x"] == (Name("x"),)
    assert package.description.functions["main"].outputs[0].name == "y"


def test_weights_are_views_of_the_file(good: Path) -> None:
    constants = [each for each in read_package(good).function().block.operations if each.op == "const"]
    weight = next(each.attributes["val"].array for each in constants if each.attributes["val"].shape == WEIGHT.shape)
    np.testing.assert_array_equal(weight, WEIGHT)
    assert not weight.flags.owndata
    assert not weight.flags.writeable


def test_a_specification_in_memory_is_read(good: Path) -> None:
    data = (good / MODEL).read_bytes()
    for weights in ({"weight.bin": (good / WEIGHTS).read_bytes()}, (good / WEIGHTS).parent):
        assert read_specification(data, weights).function().name == "main"
    with pytest.raises(NotFoundError, match="weight.bin"):
        read_specification(data)


def test_unknown_function(good: Path) -> None:
    with pytest.raises(NotFoundError, match="no function 'other'; it has \\['main'\\]"):
        read_package(good).function("other")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing.mlpackage"):
        read_package(tmp_path / "nothing.mlpackage")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"no Manifest\.json"):
        read_package(tmp_path)


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "[]",
        "{" * 10000,
        json.dumps({"itemInfoEntries": {"1": {"path": "../../secret"}}, "rootModelIdentifier": "1"}),
        json.dumps({"itemInfoEntries": {"1": {"path": "/etc/passwd"}}, "rootModelIdentifier": "1"}),
        json.dumps({"itemInfoEntries": {"1": {"path": 3}}, "rootModelIdentifier": "1"}),
        json.dumps({"itemInfoEntries": {"1": {"path": "a\0b"}}, "rootModelIdentifier": "1"}),
        json.dumps({"itemInfoEntries": [], "rootModelIdentifier": "2"}),
    ],
)
def test_malformed_manifest(package: Path, manifest: str) -> None:
    (package / "Manifest.json").write_text(manifest)
    with pytest.raises(InvalidArgumentError, match=r"Manifest\.json"):
        read_package(package)


def test_a_manifest_that_names_what_is_missing(package: Path) -> None:
    (package / MODEL).unlink()
    with pytest.raises(NotFoundError, match=r"model\.mlmodel"):
        read_package(package)


def test_a_compiled_model(tmp_path: Path) -> None:
    compiled = tmp_path / "model.mlmodelc"
    compiled.mkdir()
    with pytest.raises(UnsupportedError, match="compiled"):
        read_package(compiled)


def test_a_pickle(tmp_path: Path) -> None:
    """It is never unpickled: only protobuf's parser sees it."""
    path = tmp_path / "model.mlmodel"
    path.write_bytes(pickle.dumps({"weights": list(range(1000))}))
    with pytest.raises((InvalidArgumentError, UnsupportedError), match=r"model\.mlmodel"):
        read_package(path)


@pytest.mark.parametrize("outside", ["model", "weights", "folder"])
def test_links_out_of_the_package(package: Path, tmp_path: Path, outside: str) -> None:
    moved = {"model": package / MODEL, "weights": package / WEIGHTS, "folder": (package / WEIGHTS).parent}[outside]
    elsewhere = tmp_path / "elsewhere"
    moved.rename(elsewhere)
    moved.symlink_to(elsewhere)
    with pytest.raises(InvalidArgumentError, match="leads out of it"):
        read_package(package)


def test_a_link_to_itself(package: Path) -> None:
    (package / WEIGHTS).unlink()
    (package / WEIGHTS).symlink_to(package / WEIGHTS)
    with pytest.raises(NotFoundError, match=r"weight\.bin"):
        read_package(package)


def test_weights_that_are_no_file(package: Path) -> None:
    (package / WEIGHTS).unlink()
    os.mkfifo(package / WEIGHTS)
    with pytest.raises(InvalidArgumentError, match="not a file"):
        read_package(package)


@pytest.mark.parametrize("name", ["@model_path/../../../x", "/etc/passwd", "@model_path/", "a\0b", ".."])
def test_weight_files_elsewhere(package: Path, name: str) -> None:
    def change(proto: Any) -> None:
        for operation in block_of(proto).operations:
            if operation.attributes["val"].WhichOneof("value") == "blobFileValue":
                operation.attributes["val"].blobFileValue.fileName = name

    spoil(package, change)
    with pytest.raises(InvalidArgumentError, match="not a path inside the package"):
        read_package(package)


@pytest.mark.parametrize("size", [0, 10, 64, 100, 128, 300])
def test_truncated_weights(package: Path, size: int) -> None:
    data = (package / WEIGHTS).read_bytes()
    (package / WEIGHTS).write_bytes(data[:size])
    with pytest.raises(InvalidArgumentError, match=r"weight\.bin"):
        read_package(package)


def test_a_model_cut_anywhere(package: Path) -> None:
    data = (package / MODEL).read_bytes()
    for size in range(0, len(data), 7):
        (package / MODEL).write_bytes(data[:size])
        with pytest.raises((InvalidArgumentError, UnsupportedError, NotFoundError)):
            read_package(package)


@pytest.mark.parametrize(
    ("offset", "message"),
    [(0, "not in a file"), (65, "boundary of 64"), (2**62, "not in a file"), (128, "begins with")],
)
def test_offsets_out_of_range(package: Path, offset: int, message: str) -> None:
    def change(proto: Any) -> None:
        for operation in block_of(proto).operations:
            if operation.attributes["val"].WhichOneof("value") == "blobFileValue":
                operation.attributes["val"].blobFileValue.offset = offset

    spoil(package, change)
    with pytest.raises(InvalidArgumentError, match=message):
        read_package(package)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ((0xDEADBEEF, 2, 2**32, 128, 0), "claims bytes 128 to 4294967424"),
        ((0xDEADBEEF, 2, 96 * 4, 2**63, 0), "claims bytes"),
        ((0xDEADBEEF, 2, 96 * 4 - 4, 128, 0), "takes 384"),
        ((0xDEADBEEF, 1, 96 * 4, 128, 0), "holds fp16, but the program wants fp32"),
        ((0xDEADBEEF, 77, 96 * 4, 128, 0), "unknown type 77"),
    ],
)
def test_records_that_lie(package: Path, record: tuple[int, ...], message: str) -> None:
    data = bytearray((package / WEIGHTS).read_bytes())
    data[64 : 64 + 32] = struct.pack("<IIQQQ", *record)
    (package / WEIGHTS).write_bytes(data)
    with pytest.raises(InvalidArgumentError, match=message):
        read_package(package)


def test_four_gibibytes_of_claimed_weights(package: Path) -> None:
    """Nothing is allocated for what is not there."""

    def change(proto: Any) -> None:
        for operation in block_of(proto).operations:
            value = operation.attributes["val"]
            if value.WhichOneof("value") == "blobFileValue":
                for kind in (value.type, operation.outputs[0].type):
                    kind.tensorType.dimensions[0].constant.size = 2**30
                    kind.tensorType.dimensions[1].constant.size = 1

    spoil(package, change)
    with pytest.raises(InvalidArgumentError, match="takes 4294967296"):
        read_package(package)


def test_another_version_of_weights(package: Path) -> None:
    data = bytearray((package / WEIGHTS).read_bytes())
    data[4:8] = struct.pack("<I", 9)
    (package / WEIGHTS).write_bytes(data)
    with pytest.raises(UnsupportedError, match="version 9"):
        read_package(package)


def test_another_kind_of_model(package: Path) -> None:
    def change(proto: Any) -> None:
        proto.neuralNetwork.layers.add()

    spoil(package, change)
    with pytest.raises(UnsupportedError, match="type 'neuralNetwork'; only ML Programs"):
        read_package(package)


def test_a_cycle(package: Path) -> None:
    def change(proto: Any) -> None:
        operation_of(proto, "matmul").inputs["x"].arguments[0].name = "y"

    spoil(package, change)
    with pytest.raises(InvalidArgumentError, match=r"\(matmul\), input 'x': 'y' is used before it is defined"):
        read_package(package)


def test_an_undefined_name(package: Path) -> None:
    def change(proto: Any) -> None:
        operation_of(proto, "matmul").inputs["x"].arguments[0].name = "nowhere"

    spoil(package, change)
    with pytest.raises(InvalidArgumentError, match="'nowhere' is not defined"):
        read_package(package)


def test_a_name_defined_twice(package: Path) -> None:
    def change(proto: Any) -> None:
        operation_of(proto, "matmul").outputs[0].name = "x"

    spoil(package, change)
    with pytest.raises(InvalidArgumentError, match="'x' is defined twice"):
        read_package(package)


def test_an_output_that_nobody_makes(package: Path) -> None:
    def change(proto: Any) -> None:
        block_of(proto).outputs[0] = "z"

    spoil(package, change)
    with pytest.raises(InvalidArgumentError, match="its output 'z' is not defined"):
        read_package(package)


def test_more_than_five_dimensions(package: Path) -> None:
    def change(proto: Any) -> None:
        kind = operation_of(proto, "matmul").outputs[0].type.tensorType
        for _ in range(4):
            kind.dimensions.add().constant.size = 1
        kind.rank = 6

    spoil(package, change)
    with pytest.raises(InvalidArgumentError, match="6 dimensions.*Core ML has 5 at most"):
        read_package(package)


def test_a_rank_that_is_not_that_of_the_dimensions(package: Path) -> None:
    def change(proto: Any) -> None:
        operation_of(proto, "matmul").outputs[0].type.tensorType.rank = 7

    spoil(package, change)
    with pytest.raises(InvalidArgumentError, match="a rank of 7 with 2 dimensions"):
        read_package(package)


def test_an_unknown_element_type(package: Path) -> None:
    def change(proto: Any) -> None:
        operation_of(proto, "matmul").outputs[0].type.tensorType.dataType = 40

    spoil(package, change)
    with pytest.raises(UnsupportedError, match="elements of MIL's type 40"):
        read_package(package)


def test_an_opset_without_a_block(package: Path) -> None:
    def change(proto: Any) -> None:
        proto.mlProgram.functions["main"].opset = "CoreML99"

    spoil(package, change)
    with pytest.raises(InvalidArgumentError, match="no block for its opset 'CoreML99', only for \\['CoreML5'\\]"):
        read_package(package)


def test_a_description_that_does_not_fit(package: Path) -> None:
    def change(proto: Any) -> None:
        proto.description.input[0].name = "other"

    spoil(package, change)
    with pytest.raises(InvalidArgumentError, match="\\['other'\\] are described, but the program takes \\['x'\\]"):
        read_package(package)


def test_a_constant_of_another_size_than_its_type(package: Path) -> None:
    def change(proto: Any) -> None:
        value = operation_of(proto, "matmul").inputs["transpose_x"].arguments[0]
        value.value.type.tensorType.dataType = 11
        value.value.type.tensorType.rank = 0
        value.value.immediateValue.tensor.floats.values.extend([1, 2])

    spoil(package, change)
    with pytest.raises(InvalidArgumentError, match="2 values, but the shape \\[\\] takes 1"):
        read_package(package)
