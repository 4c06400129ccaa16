"""ONNX files read and looked over before anything works on them."""

from collections.abc import Iterator
from pathlib import Path, PurePath

import onnx.checker
import onnx.defs
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto
from onnx.external_data_helper import load_external_data_for_model

from triune.core.errors import InvalidArgumentError


def load(path: Path) -> ModelProto:
    """The model of an ONNX file with all its weights.

    Raises:
        InvalidArgumentError: the file is no ONNX model, is cut short, or needs what is not there.
    """
    model = read_model(path)
    try:
        load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidArgumentError(f"the weights beside '{path}' cannot be read: {error}") from error
    return model


def require_valid(model: ModelProto) -> None:
    """Raises InvalidArgumentError where a name is used before it is defined, or an operator is not as ONNX has it."""
    try:
        # onnx leaves a type argument of its annotation open.
        onnx.checker.check_model(model)  # pyright: ignore[reportUnknownMemberType]
    except onnx.checker.ValidationError as error:
        raise InvalidArgumentError(f"the model is no valid ONNX: {' '.join(str(error).split())}") from error


def read_model(path: Path) -> ModelProto:
    """The model of an ONNX file, its external data left where they are.

    Raises:
        InvalidArgumentError: the file is no ONNX model, is cut short, or needs what is not there.
    """
    try:
        model = ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise InvalidArgumentError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except DecodeError as error:
        raise InvalidArgumentError(f"'{path}' is no ONNX model, or it was cut short: {_guess(path)}") from error
    for problem in _problems(model, path):
        raise InvalidArgumentError(f"'{path}' is no complete ONNX model: {problem}")
    return model


def _problems(model: ModelProto, path: Path) -> Iterator[str]:
    if not model.ByteSize():
        yield "it is empty"
    if model.ir_version <= 0:
        yield "it states no IR version"
    if not model.HasField("graph"):
        yield "it holds no graph"
    if not model.graph.output:
        yield "its graph has no outputs"
    opsets = {each.domain or "ai.onnx": each.version for each in model.opset_import}
    if not opsets:
        yield "it imports no operator set"
    newest = onnx.defs.onnx_opset_version()
    if opsets.get("ai.onnx", 1) > newest:
        yield f"it needs operator set {opsets['ai.onnx']}; the newest that is known here is {newest}"
    for value in (*model.graph.input, *model.graph.output):
        if not value.name:
            yield "an input or output has no name"
    yield from _external_data_problems(model, path.parent)


def _external_data_problems(model: ModelProto, folder: Path) -> Iterator[str]:
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = PurePath(entries.get("location", ""))
        if location.is_absolute() or ".." in location.parts:
            yield f"the data of '{tensor.name}' are in '{location}', outside the model's folder"
            return
        file = folder / location
        if not file.is_file():
            yield f"the data of '{tensor.name}' are in the file '{location}' beside it, which does not exist"
            return
        offset, length = entries.get("offset", "0"), entries.get("length", "0")
        if not (offset.isdecimal() and length.isdecimal()):
            yield f"the data of '{tensor.name}' have the offset {offset!r} and the length {length!r}, not numbers"
            return
        end = int(offset) + int(length)
        if end > file.stat().st_size:
            yield f"the data of '{tensor.name}' end at byte {end} of '{location}', which has {file.stat().st_size}"
            return


def _guess(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself with 'git lfs pull'"
    if start.isascii() and start.decode("ascii").isprintable():
        return f"it starts with the text {start[:32].decode('ascii')!r}"
    return f"its {path.stat().st_size} bytes are not a ModelProto message"
