"""Compiled model folders, and model assets from disk or memory.

Triune compiles nothing ahead of time. Its `.mlmodelc` holds the package's content, so that code that compiles, moves
and loads models works as usual. A folder that Core ML compiled stays unchanged.

    NAME.mlmodelc/
        model.mlmodel       the specification, byte for byte
        model.mil           the program as text, as Core ML writes it; missing if a value has no textual form
        weights/...         the weights, and all other files of the package
        triune.json         {"compiler": "triune"}: marks the folder as one that Core ML did not compile

Core ML cannot load this folder.
"""

import importlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.compiled_program import PROGRAM
from triune.coreml.mil_text import write_text
from triune.coreml.package import (
    COMPILED_MODEL,
    Package,
    find_model,
    is_compiled,
    read_model,
    read_package,
    read_specification,
)
from triune.coreml.protos import model_pb2

_NOTE = {
    "compiler": "triune",
    "note": f"{COMPILED_MODEL} is the specification as it was; only Triune loads this folder, Core ML does not",
}


class ModelAssetProxy:
    """A model that has been read and can be loaded any number of times."""

    def __init__(self, package: Package) -> None:
        self.package = package


def asset_from_path(path: str) -> Any:
    """The `MLModelAsset` of an `.mlmodelc`.

    Raises:
        TriuneError: see `read_package`.
    """
    if Path(path).suffix != ".mlmodelc":
        raise InvalidArgumentError(f"'{path}' is not an .mlmodelc: compile the model first")
    return _asset(read_package(path))


def asset_from_memory(specification: bytes, blobs: Mapping[str, bytes]) -> Any:
    """The `MLModelAsset` of a specification and its weight files by name.

    Raises:
        TriuneError: see `read_specification`.
    """
    return _asset(read_specification(specification, blobs or None))


def compile_model(source: Path, folder: Path | None = None) -> Path:
    """Write the `.mlmodelc` of an `.mlpackage`, an `.mlmodel` or another `.mlmodelc`.

    Args:
        source: the model; it is read and checked first.
        folder: where to write; None makes a new temporary folder, which the caller must delete.

    Returns:
        `folder`/NAME.mlmodelc.

    Raises:
        TriuneError: see `read_package`.
    """
    read_model(source)
    target = (folder or Path(tempfile.mkdtemp(prefix="triune-"))) / f"{source.stem}.mlmodelc"
    if is_compiled(source):
        shutil.copytree(source, target, symlinks=True)
        return target
    if source.is_dir():
        model = find_model(source)
        # Copy symbolic links as links: files outside the package must not be read.
        shutil.copytree(model.parent, target, symlinks=True)
        if model.name != COMPILED_MODEL:
            (target / model.name).rename(target / COMPILED_MODEL)
    else:
        target.mkdir(parents=True)
        shutil.copyfile(source, target / COMPILED_MODEL)
    note = {**_NOTE, **_write_program(target)}
    (target / "triune.json").write_text(json.dumps(note, indent=2) + "\n")
    return target


def _write_program(target: Path) -> dict[str, str]:
    """Write the program of the model in `target` as text. A pipeline has no program of its own: nothing is
    written for it, and Core ML writes nothing either.

    Returns:
        an entry for triune.json with the reason, if a value in the program has no textual form; else nothing.
    """
    specification: Any = model_pb2().Model()
    specification.ParseFromString((target / COMPILED_MODEL).read_bytes())
    if specification.WhichOneof("Type") != "mlProgram":
        return {}
    try:
        text = write_text(specification.mlProgram)
    except UnsupportedError as error:
        return {PROGRAM: f"left out: {error}"}
    (target / PROGRAM).write_text(text, encoding="utf-8")
    return {}


def _asset(package: Package) -> Any:
    models: Any = importlib.import_module("coremltools.models.model")
    return models.MLModelAsset(ModelAssetProxy(package))
