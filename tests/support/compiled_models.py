"""Writes compiled Core ML models (.mlmodelc) as Apple's compiler does: the program as text, and the description in its
binary envelope.
"""

import json
import struct
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from triune.coreml.mil import Argument, Array, Block, Constant, Name, Program
from triune.coreml.mil_text import write_text
from triune.coreml.package import find_model
from triune.coreml.quiet import quiet

with quiet():
    _proto: Any = import_module("coremltools.proto.Model_pb2")


def compile_package(package: Path, target: Path) -> Path:
    """Write the compiled form of an `.mlpackage`."""
    model = find_model(package)
    weights = {str(each.relative_to(model.parent)): each.read_bytes() for each in model.parent.rglob("*.bin")}
    specification = _proto.Model()
    specification.ParseFromString(model.read_bytes())
    return write_compiled(specification, weights, target)


def write_compiled(specification: Any, weights: Mapping[str, bytes], target: Path) -> Path:
    """Write the compiled form of a `Model_pb2.Model`. Its weight files are given by their paths, or only by their
    names.
    """
    for name, data in weights.items():
        path = target / (name if "/" in name else f"weights/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    target.mkdir(parents=True, exist_ok=True)
    (target / "model.mil").write_text(write_text(specification.mlProgram), encoding="utf-8")
    (target / "coremldata.bin").write_bytes(core_data(specification))
    (target / "metadata.json").write_text(json.dumps([{"metadataOutputVersion": "3.0"}]))
    return target


def core_data(specification: Any) -> bytes:
    """The content of the file `coremldata.bin`."""
    description, version = specification.description.SerializeToString(), specification.specificationVersion
    name = b"generic"
    head = struct.pack("<II20xQ", 502, 5, len(name)) + name + struct.pack("<I28xQ", version, len(description))
    return head + description + struct.pack("<I12x", 502) * max(1, len(specification.mlProgram.functions))


def assert_same(one: Program, other: Program) -> None:
    """Assert that two programs are equal, with bitwise equal constants."""
    assert list(one.functions) == list(other.functions)
    for name, function in one.functions.items():
        theirs = other.functions[name]
        assert (function.inputs, function.opset) == (theirs.inputs, theirs.opset)
        _assert_same_block(function.block, theirs.block)


def _assert_same_block(one: Block, other: Block) -> None:
    assert (one.inputs, one.outputs) == (other.inputs, other.outputs)
    for ours, theirs in zip(one.operations, other.operations, strict=True):
        assert (ours.op, ours.outputs, sorted(ours.inputs)) == (theirs.op, theirs.outputs, sorted(theirs.inputs))
        for name, arguments in ours.inputs.items():
            for each, another in zip(arguments, theirs.inputs[name], strict=True):
                _assert_same_argument(each, another)
        assert sorted(ours.attributes) == sorted(theirs.attributes)
        for name, constant in ours.attributes.items():
            _assert_same_argument(constant, theirs.attributes[name])
        for each, another in zip(ours.blocks, theirs.blocks, strict=True):
            _assert_same_block(each, another)


def _assert_same_argument(one: Argument, other: Argument) -> None:
    if isinstance(one, Name) or isinstance(other, Name):
        assert one == other
        return
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    for ours, theirs in zip(_arrays(one), _arrays(other), strict=True):
        assert ours.tolist() == theirs.tolist() if ours.dtype == object else ours.tobytes() == theirs.tobytes()


def _arrays(constant: Constant) -> tuple[Array, ...]:
    return constant.value if isinstance(constant.value, tuple) else (constant.value,)
