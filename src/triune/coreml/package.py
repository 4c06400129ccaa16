"""Core ML packages on disk and specifications in memory, read and checked.

An `.mlpackage` is a folder: `Manifest.json` names the item that is the model, a protobuf under `Data`, and the weight
files lie beside it. Nothing outside the package is opened, and weights stay mapped files until they are used.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.files import read_file
from triune.coreml.compiled_program import is_of_core_ml, read_compiled_program
from triune.coreml.description import Description
from triune.coreml.mil import Function, Program
from triune.coreml.protos import model_pb2, parsed
from triune.coreml.read_description import read_description
from triune.coreml.read_program import find_function, read_program
from triune.coreml.weights import FolderWeights, MemoryWeights, NoWeights, Weights, WeightsFolder, inside

_MANIFEST = "Manifest.json"
_DATA = "Data"
# The file that Triune writes into an .mlmodelc. Core ML's own .mlmodelc has the program as text: see
# `compiled_program`.
COMPILED_MODEL = "model.mlmodel"
_LARGEST_MANIFEST_BYTES = 1 << 20
# The limit for a protobuf with a model. Parsed, it may take some tens of times its size in memory.
_LARGEST_MODEL_BYTES = 1 << 29


@dataclass(frozen=True, slots=True, eq=False)
class Package:
    """A model with an ML Program.

    Attributes:
        path: where it was read; None for a specification in memory.
        specification_version: 6 for iOS 15, 7 for iOS 16, 8 for iOS 17, 9 for iOS 18.
        description: the interface of its functions.
        program: the functions.
        size_bytes: the size of its protobuf and weight files; for a specification in memory, of the protobuf only.
    """

    path: Path | None
    specification_version: int
    description: Description
    program: Program
    size_bytes: int

    @property
    def name(self) -> str:
        """The name of the package in error messages."""
        return "specification" if self.path is None else str(self.path)

    def function(self, name: str | None = None) -> Function:
        """Return a function by name; the default function for None.

        Raises:
            NotFoundError: there is no function of that name.
        """
        return find_function(self.program, name or self.description.default_function, self.name)


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """Models that run in order: each takes inputs of the pipeline and outputs of earlier models, by name.

    Attributes:
        path: where it was read; None for a specification in memory.
        description: the interface of the pipeline.
        stages: the models; a stage may be a pipeline itself.
    """

    path: Path | None
    description: Description
    stages: tuple["Package | Pipeline", ...]


def read_package(path: Path | str, *, maps_weights: bool = True) -> Package:
    """Read an `.mlpackage`, an `.mlmodel` that holds an ML Program, or an `.mlmodelc` of one.

    Args:
        path: the package.
        maps_weights: map the weight files into memory. Otherwise they are read, so that writes to the files cannot
            change the weights, and a truncated file cannot crash the process.

    Raises:
        NotFoundError: there is nothing at `path`, or a file that the package names does not exist.
        InvalidArgumentError: the package is malformed: the message names the file, the operation and the value.
        UnsupportedError: it holds another kind of model, or something that Triune does not know.
    """
    model = read_model(path, maps_weights=maps_weights)
    if isinstance(model, Pipeline):
        raise UnsupportedError(
            f"'{path}' holds a pipeline of {len(model.stages)} models; give its models one by one, or predict with "
            "coremltools' MLModel and triune.coreml.anywhere"
        )
    return model


def read_model(path: Path | str, *, maps_weights: bool = True) -> Package | Pipeline:
    """Read a package as `read_package` does, or a pipeline of ML Programs."""
    path = Path(path)
    if is_compiled(path):
        version, description, program = read_compiled_program(path, maps_weights=maps_weights)
        _check_agreement(description, program, str(path))
        return Package(path, version, description, program, _size_of(path))
    if path.is_dir():
        model = find_model(path)
        weights: Weights = FolderWeights(model.parent, path, maps=maps_weights)
        size_bytes = _size_of(model.parent)
    elif path.exists():
        model, weights = path, NoWeights()
        size_bytes = path.stat().st_size
    else:
        raise NotFoundError(f"there is no Core ML package at '{path}'")
    return _read(_parse(_bytes_of(model, _LARGEST_MODEL_BYTES), str(path)), weights, path, size_bytes)


def is_compiled(path: Path) -> bool:
    """Whether `path` is an `.mlmodelc` that Core ML wrote, and not Triune."""
    return path.is_dir() and is_of_core_ml(path) and not (path / COMPILED_MODEL).exists()


def read_specification(specification: Any, weights: Mapping[str, bytes] | Path | str | None = None) -> Package:
    """Read a specification in memory.

    Args:
        specification: a `Model_pb2.Model`, or its bytes.
        weights: its weight files by name, or the folder that holds them; None if it has none.

    Raises:
        As `read_package`.
    """
    proto = _parse(specification, "specification") if isinstance(specification, bytes) else specification
    source: Weights
    if weights is None:
        source = NoWeights()
    elif isinstance(weights, Mapping):
        source = MemoryWeights(weights)
    else:
        source = WeightsFolder(Path(weights))
    model = _read(proto, source, None, int(proto.ByteSize()))
    if isinstance(model, Pipeline):
        raise UnsupportedError("the specification holds a pipeline; give its models one by one")
    return model


_PIPELINES = frozenset({"pipeline", "pipelineClassifier", "pipelineRegressor"})


def _read(proto: Any, weights: Weights, path: Path | None, size_bytes: int) -> Package | Pipeline:
    file = "specification" if path is None else str(path)
    kind = proto.WhichOneof("Type")
    if kind in _PIPELINES:
        held = getattr(proto, kind)
        models = (held if kind == "pipeline" else held.pipeline).models
        if not models:
            raise InvalidArgumentError(f"'{file}' holds a pipeline of no models")
        stages = tuple(_read(each, weights, path, size_bytes) for each in models)
        return Pipeline(path, read_description(proto.description, file), stages)
    if kind != "mlProgram":
        held = f"a model of type '{kind}'" if kind else "no model"
        raise UnsupportedError(f"'{file}' holds {held}; only ML Programs are known: convert its source again as one")
    description = read_description(proto.description, file)
    program = read_program(proto.mlProgram, weights, file)
    _check_agreement(description, program, file)
    return Package(path, int(proto.specificationVersion), description, program, size_bytes)


def _check_agreement(description: Description, program: Program, file: str) -> None:
    """Check that each described function exists in the program with the described inputs, outputs and states."""
    for name, described in description.functions.items():
        function = find_function(program, name, file)
        given = {feature.name for feature in (*described.inputs, *described.states)}
        taken = {value.name for value in function.inputs}
        if given != taken:
            raise InvalidArgumentError(
                f"'{file}', function '{name}': inputs and states {sorted(given)} are described, "
                f"but the program takes {sorted(taken)}"
            )
        missing = {feature.name for feature in described.outputs} - set(function.block.outputs)
        if missing:
            raise InvalidArgumentError(
                f"'{file}', function '{name}': the outputs {sorted(missing)} are described, "
                f"but the program has {sorted(function.block.outputs)}"
            )


def _size_of(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def _parse(data: bytes, file: str) -> Any:
    return parsed(model_pb2().Model(), data, file, "a Core ML specification")


def find_model(path: Path) -> Path:
    """Find the protobuf in an `.mlpackage` folder, or in an `.mlmodelc` that Triune wrote.

    Raises:
        InvalidArgumentError: the folder is neither, or its manifest is malformed.
        NotFoundError: the file that the manifest names does not exist.
    """
    if is_of_core_ml(path):
        return inside(path, path / COMPILED_MODEL, COMPILED_MODEL)
    manifest_path = path / _MANIFEST
    if not manifest_path.exists():
        raise InvalidArgumentError(f"'{path}' is not a Core ML package: it has no {_MANIFEST}")
    data = _bytes_of(inside(path, manifest_path, _MANIFEST), _LARGEST_MANIFEST_BYTES)
    try:
        manifest: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"'{manifest_path}' is not JSON: {error}") from error
    relative = _root_item(manifest)
    if relative is None or relative.is_absolute() or ".." in relative.parts:
        raise InvalidArgumentError(f"'{manifest_path}' does not name the file of its model under '{_DATA}'")
    return inside(path, path / _DATA / relative, str(relative))


def _root_item(manifest: Any) -> PurePosixPath | None:
    """The path of the item that the manifest names as the model; None if it names none."""
    if not isinstance(manifest, dict):
        return None
    fields = cast(dict[str, Any], manifest)
    entries, root = fields.get("itemInfoEntries"), fields.get("rootModelIdentifier")
    if not isinstance(entries, dict) or not isinstance(root, str):
        return None
    entry: Any = cast(dict[str, Any], entries).get(root)
    where: Any = cast(dict[str, Any], entry).get("path") if isinstance(entry, dict) else None
    return PurePosixPath(where) if isinstance(where, str) and where and "\0" not in where else None


def _bytes_of(path: Path, limit: int) -> bytes:
    if not path.is_file():
        raise InvalidArgumentError(f"'{path}' is not a file")
    size = path.stat().st_size
    if size > limit:
        raise UnsupportedError(f"'{path}' has {size} bytes; {limit} is the most that is read")
    try:
        return read_file(path, limit)
    except OSError as error:
        raise InvalidArgumentError(f"cannot read '{path}': {error}") from error
