"""Put the bodies of custom operators into a model before functions that read only ONNX's own operators."""

import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from triune.api.rounds import Tell
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, TriuneError
from triune.graph.conversion.shapes import InputShape
from triune.graph.custom import CustomOps
from triune.graph.custom.compare import BodyDiffersError, compare_bodies
from triune.graph.custom.resolve import require_bodies, told_hidden, with_bodies
from triune.graph.custom.stages import NumpyFunctionError
from triune.graph.load import load
from triune.graph.op_libraries import register_libraries
from triune.graph.optimizing.save import save
from triune.graph.session import onnxruntime_library
from triune.graph.verify import samples_of


@dataclass(frozen=True, slots=True)
class BodyCheck:
    """How bodies are compared with their numpy functions.

    Attributes:
        given: inputs by name; the others are generated.
        shapes: the sizes of free dimensions, by input.
        is_asked: whether the user asked for the comparison. If so, it is an error if the comparison cannot be made.
    """

    given: Mapping[str, Array]
    shapes: Mapping[str, InputShape]
    is_asked: bool


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model whose custom operators have their bodies.

    Attributes:
        path: its file, which exists until the context ends.
        notes: how far the bodies' results differ from those of their numpy functions, and which operators the model has
            as functions of its own.
    """

    path: Path
    notes: tuple[str, ...] = ()


@contextmanager
def with_custom_ops(
    source: Path, ops: CustomOps, where: str, check: BodyCheck | None, tell: Tell, *, keeps_numpy: bool = False
) -> Generator[Resolved]:
    """Put the bodies of custom operators into a model.

    Args:
        source: a model file. Only .onnx files have custom operators.
        ops: the custom operators.
        where: the purpose for which the bodies are needed, for messages: "a conversion to Core ML".
        check: how to compare bodies with their numpy functions; None compares nothing.
        tell: called with a message at each step.
        keeps_numpy: whether operators without a body may stay in the model.

    Raises:
        InvalidArgumentError: the file is not an ONNX model, a body differs from its numpy function, or a library cannot
            be loaded.
        UnsupportedError: the model has a custom operator without a body, unless `keeps_numpy`.
    """
    if ops.libraries:
        register_libraries(onnxruntime_library().SessionOptions(), ops.libraries)
    if source.suffix != ".onnx" or not ops.ops:
        yield Resolved(source)
        return
    model = load(source)
    notes = told_hidden(model, ops)
    whole = with_bodies(model, ops)
    if not keeps_numpy:
        require_bodies(whole or model, ops, where)
    if whole is None:
        yield Resolved(source, notes)
        return
    if check is not None:
        tell("comparing bodies of custom operators with numpy")
        notes += _compared(model, ops, check)
    with tempfile.TemporaryDirectory(prefix="triune-custom-") as folder:
        path = Path(folder) / source.name
        save(whole, path)
        yield Resolved(path, notes)


def _compared(model: ModelProto, ops: CustomOps, check: BodyCheck) -> tuple[str, ...]:
    try:
        sample = samples_of(model, check.shapes, check.given, is_half=False)[0]
        return tuple(compare_bodies(model, ops, sample.arrays))
    except BodyDiffersError:
        raise
    except (TriuneError, NumpyFunctionError) as error:
        if check.is_asked:
            raise InvalidArgumentError(
                f"the model with its custom operators in numpy cannot run, to compare their bodies with it: {error}; "
                "give inputs that it takes"
            ) from error
        return (f"the bodies of custom operators were not compared with their numpy functions: {error}",)
