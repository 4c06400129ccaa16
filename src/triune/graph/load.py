"""Read ONNX files and check whether they are valid."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath

import onnx.checker
import onnx.defs
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from triune.core.errors import InvalidArgumentError
from triune.core.files import non_file_kind, open_file
from triune.graph import paged_attention
from triune.graph.all_tensors import tensors_of, tensors_within
from triune.graph.calls import problem_of_calls
from triune.graph.declared import free_negative_sizes
from triune.graph.hoist import hoist_weights
from triune.graph.imports import import_used
from triune.graph.read_light import read_light
from triune.graph.texts import broken_text
from triune.graph.values import subgraphs_of
from triune.graph.weight_files import LARGE_BYTES, load_data, num_bytes, refer, size_in_file

_FIRST_SCAN_WITHOUT_LENGTHS = 9

_NUMBER = re.compile("[0-9]{1,19}")

_LARGEST_FILE_BYTES = 2**31 - 1
"""The largest file that protobuf reads. Larger models have their weights in other files."""

_LARGEST_SIZE = 2**31 - 1
"""The largest size of a dimension. Apple's runtimes index in int32, and ONNX's inference never returns for some larger
sizes.
"""


def load(path: Path) -> ModelProto:
    """Load an ONNX file. Large weights stay in their files, from which `weight_files.array_of` reads them.

    Raises:
        InvalidArgumentError: the file is not an ONNX model, is cut short, or refers to a file that is missing.
    """
    path = path.absolute()
    model = _read(path, read_light)
    hoist_weights(model)
    locate_data(model, path.parent)
    return model


def locate_data(model: ModelProto, folder: Path) -> None:
    """Set the location of each large external initializer to the full path of its file; load the data of other external
    tensors.

    Args:
        model: a result of `read_model`; changed.
        folder: the absolute path of the folder that contains the model's file.

    Raises:
        InvalidArgumentError: a file is missing, or a tensor's data have fewer or more bytes than its shape takes.
    """
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            _find_data(tensor, folder)
            if num_bytes(tensor) < LARGE_BYTES:
                load_data(tensor)
    for tensor in tensors_within(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            _find_data(tensor, folder)
            load_data(tensor)


def has_external_data(model: ModelProto, path: Path) -> bool:
    """Whether a model that `read_model` read from `path` has data in other files."""
    return any(_is_elsewhere(tensor, path) for tensor in tensors_of(model))


def external_data(model: ModelProto, path: Path) -> Mapping[Path, Sequence[tuple[int, int]]]:
    """Find the byte ranges of other files that are external data of a model that `read_model` returned.

    Args:
        model: the model that was read from `path`.
        path: the model's file.

    Returns:
        for each file, the begin and the end of each range in bytes, ascending and without overlap.

    Raises:
        InvalidArgumentError: a tensor's data have fewer or more bytes than its shape takes.
    """
    pieces: dict[Path, list[tuple[int, int]]] = {}
    for tensor in tensors_of(model):
        if _is_elsewhere(tensor, path):
            file, offset, length = _data_range(tensor, path.parent)
            pieces.setdefault(file, []).append((offset, offset + length))
    return {file: _merged_ranges(sorted(each)) for file, each in pieces.items()}


def _is_elsewhere(tensor: TensorProto, path: Path) -> bool:
    """Whether a tensor's data are in another file than `path`. `read_light` writes the full path of the file into
    tensors.
    """
    return tensor.data_location == TensorProto.EXTERNAL and f"{path.absolute()}" not in (
        each.value for each in tensor.external_data if each.key == "location"
    )


def _merged_ranges(pieces: Iterable[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for begin, end in pieces:
        if joined and begin <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((begin, end))
    return joined


def _find_data(tensor: TensorProto, folder: Path) -> None:
    """Set a tensor's external location to the absolute path, offset and length of its data."""
    refer(tensor, *_data_range(tensor, folder))


def _data_range(tensor: TensorProto, folder: Path) -> tuple[Path, int, int]:
    """The file, the offset and the length of a tensor's data."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    # An absolute location replaces `folder` here. Only `read_light` writes such locations: `_external_data_problems`
    # refuses a file that has any.
    file, offset, size = folder / entries.get("location", ""), int(entries.get("offset", "0")), size_in_file(tensor)
    length = int(entries["length"]) if "length" in entries else size or file.stat().st_size - offset
    if size is not None and length != size:
        raise InvalidArgumentError(
            f"the data of '{tensor.name}' take {length} bytes of '{file.name}'; its shape {list(tensor.dims)} takes "
            f"{size}"
        )
    return file, offset, length


def require_valid(model: ModelProto) -> None:
    """Raises InvalidArgumentError if a model is not valid ONNX.

    For instance, a name is used before it is defined, a node does not follow the schema of its operator, an input is
    larger than 2^31 - 1 along an axis, or an output is listed twice.
    """
    for value in model.graph.input:
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if max(sizes, default=0) > _LARGEST_SIZE:
            raise InvalidArgumentError(
                f"input '{value.name}' is declared with a size of {max(sizes)}; the largest that runs is "
                f"{_LARGEST_SIZE}"
            )
    for name, count in Counter(value.name for value in model.graph.output).items():
        if count > 1:
            raise InvalidArgumentError(
                f"output '{name}' is listed {count} times; programs have one output of a name: give each its own by an "
                "Identity"
            )
    paged_attention.register()
    checked = model
    if any(not _is_declared(value) for value in (*model.graph.input, *model.graph.output)):
        # Declare each input and output without a type as FLOAT: the checker, unlike the specification, requires a type.
        checked = ModelProto()
        checked.CopyFrom(model)
        for value in (*checked.graph.input, *checked.graph.output):
            if not _is_declared(value):
                value.type.tensor_type.elem_type = value.type.tensor_type.elem_type or TensorProto.FLOAT
                value.type.tensor_type.shape.SetInParent()
    try:
        # Pyright is silenced since onnx's annotation of `check_model` is incomplete. The check of operator sets is
        # skipped: a function may be of another operator set than the model, and is upgraded separately.
        onnx.checker.check_model(  # pyright: ignore[reportUnknownMemberType]
            checked, skip_opset_compatibility_check=True
        )
    except onnx.checker.ValidationError as error:
        raise InvalidArgumentError(f"the model is not valid ONNX: {' '.join(str(error).split())}") from error
    for body, imports in [(model.graph, model.opset_import), *((each, each.opset_import) for each in model.functions)]:
        version = next((each.version for each in imports if each.domain in ("", "ai.onnx")), 0)
        _require_fitting_counts(body.node, version)


def _require_fitting_counts(nodes: Iterable[NodeProto], version: int) -> None:
    """Raises InvalidArgumentError if a subgraph of an If, Loop or Scan has more or fewer inputs or outputs than the
    node.

    ONNX's checker does not check this.
    """
    for node in nodes:
        # In operator set 8, Scan has one more input, the lengths of sequences.
        num_given = len(node.input) - (node.op_type == "Scan" and version < _FIRST_SCAN_WITHOUT_LENGTHS)
        needed = {
            "If": (0, len(node.output)),
            "Loop": (max(num_given, 2), len(node.output) + 1),
            "Scan": (num_given, len(node.output)),
        }.get(node.op_type)
        num_scanned = next((each.i for each in node.attribute if each.name == "num_scan_inputs"), 0)
        if num_scanned > num_given:
            raise InvalidArgumentError(
                f"the model is not valid ONNX: Scan '{node.name or node.output[0]}' has {num_given} inputs and is to "
                f"scan {num_scanned} of them"
            )
        for inner in subgraphs_of(node):
            if needed is not None and (len(inner.input), len(inner.output)) != needed:
                raise InvalidArgumentError(
                    f"the model is not valid ONNX: graph '{inner.name}' of {node.op_type} "
                    f"'{node.name or next(filter(None, node.output), '')}' has {len(inner.input)} inputs and "
                    f"{len(inner.output)} outputs; the node needs {needed[0]} and {needed[1]}"
                )
            _require_fitting_counts(inner.node, version)


def _is_declared(value: ValueInfoProto) -> bool:
    kind = value.type.WhichOneof("value")
    return kind is not None and (kind != "tensor_type" or value.type.tensor_type.HasField("shape"))


def read_model(path: Path) -> ModelProto:
    """Read an ONNX file without its external data. Its own large weights stay in it: see `read_light`.

    Raises:
        InvalidArgumentError: the file is not an ONNX model, is cut short, or refers to a file that is missing.
    """
    return _read(path, lambda path: read_light(path.absolute(), _LARGEST_FILE_BYTES))


def _read(path: Path, parse: Callable[[Path], ModelProto]) -> ModelProto:
    try:
        model = parse(path)
    except OSError as error:
        raise InvalidArgumentError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except DecodeError as error:
        raise InvalidArgumentError(f"'{path}' is not an ONNX model, or was cut short: {_guess(path)}") from error
    for problem in _problems(model, path):
        raise InvalidArgumentError(f"'{path}' is not a complete ONNX model: {problem}")
    free_negative_sizes(model.graph)
    import_used(model)
    return model


def _problems(model: ModelProto, path: Path) -> Iterator[str]:
    # Do not ask for the size of an empty model: protobuf finds it by writing the model, while no other thread runs.
    if not model.ListFields():
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
    if opsets.get("ai.onnx", 1) < 1:
        yield f"it imports operator set {opsets['ai.onnx']}; the first is 1"
    newest = onnx.defs.onnx_opset_version()
    if opsets.get("ai.onnx", 1) > newest:
        yield f"it needs operator set {opsets['ai.onnx']}; the newest that is known here is {newest}"
    for value in (*model.graph.input, *model.graph.output):
        if not value.name:
            yield "an input or output has no name"
    if problem := broken_text(model) or problem_of_calls(model.functions):
        yield problem
    yield from _external_data_problems(model, path)


def _external_data_problems(model: ModelProto, path: Path) -> Iterator[str]:
    for tensor in tensors_of(model):
        if not _is_elsewhere(tensor, path):
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = PurePath(entries.get("location", ""))
        if location.is_absolute() or ".." in location.parts:
            yield f"the data of '{tensor.name}' are in '{location}', outside the model's folder"
            return
        file = path.parent / location
        try:
            kind = non_file_kind(file)
            size = file.stat().st_size
        except FileNotFoundError:
            yield f"the data of '{tensor.name}' are in the file '{location}' beside it, which does not exist"
            return
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            yield f"the data of '{tensor.name}' are in the file '{location}' beside it, which cannot be read: {reason}"
            return
        if kind is not None:
            yield f"the data of '{tensor.name}' are in '{location}' beside it, which is {kind}, not a file"
            return
        offset, length = entries.get("offset", "0"), entries.get("length", "0")
        if not (_NUMBER.fullmatch(offset) and _NUMBER.fullmatch(length)):
            yield f"the data of '{tensor.name}' have the offset {offset!r} and the length {length!r}, not numbers"
            return
        end = int(offset) + int(length)
        if end > size:
            yield f"the data of '{tensor.name}' end at byte {end} of '{location}', which has {size}"
            return


def _guess(path: Path) -> str:
    with open_file(path) as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself with 'git lfs pull'"
    if start.startswith(b"PK"):
        return "it is a zip archive, as PyTorch's files are; export the model with torch.onnx.export"
    if start[4:8] == b"TFL3":
        return "it is a TensorFlow Lite model; make it ONNX with tf2onnx"
    if start.lstrip().startswith(b"<"):
        return f"it starts with the text {start[:32].decode('ascii', 'replace')!r}, as pages of the web do"
    if start.isascii() and start.decode("ascii").isprintable():
        # Do not quote the text in the message: through a link, this may be a file whose content must stay private.
        return "it is a text"
    return f"its {path.stat().st_size} bytes are not a ModelProto message"
