import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.compiled_models import compile_package, core_data
from support.mil_models import ct, program, save, save_affine, save_flexible, tensor
from support.mil_programs import mb
from triune import coreml
from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.coreml.package import read_package

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """y = x w of 8 x 8 weights in a file."""

    @program(tensor(1, 8))
    def made(x: Any) -> Any:
        return mb.matmul(x=x, y=np.eye(8, dtype=np.float32)[::-1], name="y")

    return compile_package(save(tmp_path, made), tmp_path / "model.mlmodelc")


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_weights_lie_in_their_own_file(compiled: Path) -> None:
    assert (
        'BLOBFILE(path = string("@model_path/weights/weight.bin"), offset = uint64(64))'
        in (compiled / "model.mil").read_text()
    )
    model = coreml.load(compiled)
    x = np.arange(8, dtype=np.float32)[None]
    np.testing.assert_array_equal(model.predict({"x": x})["y"], x[:, ::-1])
    assert model.package.path == compiled
    assert model.package.specification_version == 9
    assert model.package.size_bytes == sum(each.stat().st_size for each in compiled.rglob("*") if each.is_file())


def test_a_compiled_folder_of_another_name(compiled: Path, tmp_path: Path) -> None:
    shutil.move(compiled, tmp_path / "plain")
    assert read_package(tmp_path / "plain").description.default_function == "main"


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("uint64(64)", "uint64(128)", InvalidArgumentError, "the record at 128"),
        ("uint64(64)", "uint64(18446744073709551552)", InvalidArgumentError, "is not in a file of"),
        ("uint64(64)", "uint64(65)", InvalidArgumentError, "on a boundary of 64"),
        ("(tensor<fp32, [8, 8]>(BLOB", "(tensor<fp32, [8, 9]>(BLOB", TriuneError, "takes"),
        ("weights/weight.bin", "weights/none.bin", NotFoundError, "none.bin"),
        ("@model_path/weights/weight.bin", "../outside.bin", InvalidArgumentError, "not a path inside"),
        ("tensor<fp32, [1, 8]> x)", "tensor<fp32, [1, 8]> z)", InvalidArgumentError, "'x' is not defined"),
        ("-> (y)", "-> (x)", InvalidArgumentError, r"the outputs \['y'\] are described, but the program has \['x'\]"),
        ("func main", "func other", NotFoundError, "has no function 'main'"),
        ("matmul(", "matmul", InvalidArgumentError, r"model\.mil', line \d+, column \d+: '\(' is expected"),
    ],
)
def test_what_does_not_fit_together(compiled: Path, old: str, new: str, error: type[TriuneError], message: str) -> None:
    _edit(compiled / "model.mil", old.replace("(tensor", "tensor"), new.replace("(tensor", "tensor"))
    with pytest.raises(error, match=message) as caught:
        read_package(compiled)
    assert "model.mlmodelc" in str(caught.value) or "outside" in str(caught.value)


def test_unknown_operations_are_refused_when_they_are_to_run(compiled: Path) -> None:
    _edit(compiled / "model.mil", "matmul(", "matmul_again(")
    with pytest.raises(TriuneError, match="matmul_again"):
        coreml.load(compiled)


def test_weights_that_are_missing(compiled: Path) -> None:
    (compiled / "weights" / "weight.bin").unlink()
    with pytest.raises(NotFoundError, match=r"weight\.bin"):
        read_package(compiled)


@pytest.mark.parametrize("name", ["model.mil", "coremldata.bin", "weights/weight.bin"])
def test_links_out_of_the_folder(compiled: Path, tmp_path: Path, name: str) -> None:
    (compiled / name).rename(tmp_path / "outside")
    (compiled / name).symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidArgumentError, match="leads out of it"):
        read_package(compiled)


def test_what_is_no_text(compiled: Path) -> None:
    (compiled / "model.mil").write_bytes(b"program(1.0) \xff")
    with pytest.raises(InvalidArgumentError, match=r"model\.mil' is not text"):
        read_package(compiled)
    (compiled / "model.mil").unlink()
    (compiled / "model.mil").mkdir()
    with pytest.raises(InvalidArgumentError, match=r"model\.mil' is not a file"):
        read_package(compiled)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:-80], "claims a description of .* bytes at 83.*is it truncated"),
        (lambda data: data[:83] + b"\xff" * (len(data) - 83), "are not the description of a model"),
    ],
    ids=["cut", "spoiled"],
)
def test_a_broken_description(compiled: Path, spoil: Callable[[bytes], bytes], message: str) -> None:
    path = compiled / "coremldata.bin"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InvalidArgumentError, match=message):
        read_package(compiled)


def _metadata(folder: Path, **x: Any) -> None:
    usual = {"type": "MultiArray", "dataType": "Float32", "isOptional": "0", "hasShapeFlexibility": "0"}
    schemas = {
        "inputSchema": [{**usual, "name": "x", "shape": "[2, 3]", **x}],
        "outputSchema": [{**usual, "name": "y", "shape": "[]"}],
    }
    (folder / "metadata.json").write_text(json.dumps([{**schemas, "computePrecision": "Float32", "stateSchema": []}]))


@pytest.mark.parametrize("data", [None, b"", b"\x01" * 200, struct.pack("<II20xQ", 502, 5, 2**60) + bytes(90)])
def test_metadata_stand_in_for_the_description(tmp_path: Path, data: bytes | None) -> None:
    """Where there is none, or it lies in another envelope."""
    folder = compile_package(save_affine(tmp_path, target="iOS16"), tmp_path / "m.mlmodelc")
    _metadata(folder)
    (folder / "coremldata.bin").unlink()
    if data is not None:
        (folder / "coremldata.bin").write_bytes(data)
    model = coreml.load(folder)
    assert model.package.specification_version == 7
    np.testing.assert_array_equal(model.predict({"x": X})["y"], 2 * X + 1)
    (folder / "metadata.json").unlink()
    with pytest.raises(NotFoundError, match=r"neither a coremldata\.bin that can be read nor a metadata\.json"):
        read_package(folder)


def test_shapes_of_metadata(tmp_path: Path) -> None:
    path = save_flexible(tmp_path, ct.EnumeratedShapes([[1, 3], [2, 3]]))
    folder = compile_package(path, tmp_path / "m.mlmodelc")
    (folder / "coremldata.bin").unlink()
    _metadata(folder, hasShapeFlexibility="1", enumeratedShapes="[[1, 3], [2, 3]]")
    model = coreml.load(folder)
    np.testing.assert_array_equal(model.predict({"x": X})["y"], X + 1)
    with pytest.raises(InvalidArgumentError, match=r"one of \[1, 3\], \[2, 3\]"):
        model.predict({"x": np.zeros((3, 3))})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["model.espresso.net", "coremldata.bin"], "neural network, which only Core ML itself runs: convert its"),
        (["model0/coremldata.bin", "coremldata.bin"], "pipeline, which only Core ML itself runs"),
        (["coremldata.bin"], "only Core ML itself reads that form; give the .mlpackage"),
        ([], "only Core ML itself reads that form; give the .mlpackage"),
    ],
)
def test_other_kinds_of_compiled_models(tmp_path: Path, names: list[str], message: str) -> None:
    folder = tmp_path / "m.mlmodelc"
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    with pytest.raises(UnsupportedError, match=message):
        read_package(folder)


def test_the_envelope_is_the_one_that_apple_writes() -> None:
    """The first bytes are those of a file by coremlc 3402.4.1."""
    specification: Any = ct.proto.Model_pb2.Model(specificationVersion=7)
    specification.description.input.add(name="x").type.multiArrayType.dataType = 65552
    data = core_data(specification)
    assert data[:36] == bytes.fromhex("f6010000 05000000" + "00" * 20 + "0700000000000000")
    assert data[36:48] == b"generic" + bytes.fromhex("0700000000")
    assert data[75:83] == struct.pack("<Q", len(data) - 83 - 16)
