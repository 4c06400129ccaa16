"""Read the interface of a model that Core ML compiled from the `metadata.json` in its `.mlmodelc` folder.

All values in it are strings: "[1, 3]" for a shape, "1" for true. It says less than `coremldata.bin` in the same folder,
but it also describes models that are not ML Programs, which only Core ML can run.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.files import read_file
from triune.coreml.description import ArrayFeature, Bounds, Feature, FunctionDescription
from triune.coreml.mil import DType

METADATA = "metadata.json"
_LARGEST_BYTES = 1 << 24
_LARGEST_SIZE = 2**31 - 1
_DTYPES = {"Float16": DType.FP16, "Float32": DType.FP32, "Double": DType.FP64, "Int32": DType.INT32}


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled model.

    Attributes:
        interface: its inputs and outputs, which are all multi-arrays.
        precision: "fp16" or "fp32", in which the model computes.
    """

    interface: FunctionDescription
    precision: str


def read_compiled(path: Path) -> Compiled:
    """Read the metadata of an `.mlmodelc`.

    Raises:
        InvalidArgumentError: the metadata are missing or malformed.
        UnsupportedError: a feature is not a multi-array, a shape is flexible in an unknown way, or there are states.
    """
    file = path / METADATA
    try:
        (metadata,) = json.loads(read_file(file, _LARGEST_BYTES))
        if metadata.get("stateSchema"):
            raise UnsupportedError(
                f"'{path}' keeps states between calls, and a request is one call; a server takes them as inputs "
                "and outputs where parameter 'coreml.states' is 'explicit'"
            )
        inputs, outputs = (
            tuple(_feature(each, f"'{path}'") for each in metadata[f"{kind}Schema"]) for kind in ("input", "output")
        )
        precision = "fp16" if "Float16" in str(metadata.get("computePrecision", "")) else "fp32"
    except OSError as error:
        raise InvalidArgumentError(f"'{file}' cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidArgumentError(f"'{file}' is not what Core ML writes: {type(error).__name__}: {error}") from error
    return Compiled(FunctionDescription("main", inputs, outputs), precision)


def _feature(entry: dict[str, str], where: str) -> Feature:
    name = entry["name"]
    where = f"{where}, '{name}'"
    if entry["type"] != "MultiArray":
        raise UnsupportedError(
            f"{where}: compiled models of {entry['type']} features are not served; give the .mlpackage"
        )
    if entry["dataType"] not in _DTYPES:
        raise UnsupportedError(f"{where}: multi-arrays of {entry['dataType']} are not known")
    bounds: tuple[Bounds, ...] = ()
    if "shapeRange" in entry:
        ranges = cast("list[tuple[Any, Any]]", json.loads(entry["shapeRange"]))
        # An upper limit of -1 means no limit.
        bounds = tuple(Bounds(_size(low), None if high == -1 else _size(high)) for low, high in ranges)
    elif entry.get("hasShapeFlexibility", "0") != "0" and "enumeratedShapes" not in entry:
        raise UnsupportedError(f"{where}: its shape is flexible in a way that is not known; give the .mlpackage")
    shape = tuple(_size(size) for size in json.loads(entry["shape"]))
    shapes = tuple(tuple(_size(size) for size in each) for each in json.loads(entry.get("enumeratedShapes", "[]")))
    array = ArrayFeature(_DTYPES[entry["dataType"]], shape, shapes, bounds)
    return Feature(name, array, entry.get("isOptional", "0") != "0")


def _size(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= _LARGEST_SIZE:
        raise ValueError(f"{value!r} is not a size")
    return value
