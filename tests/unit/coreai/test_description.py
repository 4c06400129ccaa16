"""What an asset holds, and that what would end the process that reads it ends another one."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from support.coreai_programs import Sample, image_type, numbers, ops, save, save_graph
from support.coreai_samples import SAMPLES
from triune.core.datatypes import DataType
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreai.description import describe
from triune.coreai.images import Image, PixelFormat


def test_functions_and_their_tensors(tmp_path: Path) -> None:
    sample = SAMPLES["control_flow"]["state"]
    described = describe(save(sample, tmp_path / "m.aimodel"))
    (function,) = described.functions
    assert function.name == "main"
    assert [(each.name, each.type, each.shape) for each in function.inputs] == [("x", "f32", (2, 3))]
    assert [each.name for each in function.states] == ["total"]
    signature = function.signature()
    assert [spec.name for spec in signature.inputs] == ["x", "total"]
    assert [spec.name for spec in signature.outputs] == ["y0", "total/new"]


def test_free_dimensions_and_types(tmp_path: Path) -> None:
    sample = Sample(lambda x: ops.cast(x, np.uint8), {"größe in px": numbers(2, 3, dtype=np.float16)})
    (function,) = describe(save(sample, tmp_path / "m.aimodel", is_dynamic=True)).functions
    spec = function.signature().inputs[0]
    assert (spec.name, spec.datatype, spec.shape) == ("größe in px", DataType.FP16, (-1, -1))
    assert function.signature().outputs[0].datatype is DataType.UINT8


def test_complex_numbers_are_no_request(tmp_path: Path) -> None:
    sample = Sample(lambda x: ops.create_complex(x, x), {"x": numbers(2)})
    (function,) = describe(save(sample, tmp_path / "m.aimodel")).functions
    with pytest.raises(UnsupportedError, match="'y0' is of complex<f32>"):
        function.signature()


def test_images_are_requests_of_bytes(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "m.aimodel", ["x"], lambda: [image_type("BGRA32", 2, 3)], lambda x: x)
    (function,) = describe(path).functions
    assert function.inputs[0].image == function.outputs[0].image == Image(PixelFormat.BGRA32, 2, 3)
    (spec,) = function.signature().inputs
    assert (spec.name, spec.datatype, spec.shape) == ("x", DataType.UINT8, (2, 3, 4))


def test_bytecode_that_ends_apples_library(tmp_path: Path) -> None:
    path = save(Sample(lambda x: ops.relu(x), {"x": numbers(2, 3)}), tmp_path / "m.aimodel")
    data = bytearray((path / "main.mlirb").read_bytes())
    # Within a section, whose length stays right.
    data[120] ^= 0xFF
    data[200] ^= 0xFF
    (path / "main.mlirb").write_bytes(data)
    (path / "main.hash").write_bytes(hashlib.sha256(data).digest())
    with pytest.raises(InvalidArgumentError, match=r"'m\.aimodel'"):
        describe(path)
