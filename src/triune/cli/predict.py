"""`triune predict`: run a Core ML or Core AI program on any system, without a server."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import quote

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from triune import coreai, coreml
from triune.cli.arrays import as_numbers, preview, read_array, split_pairs
from triune.cli.names import Names
from triune.cli.output import escaped, escaped_lines, print_json, progress_bar
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.model import Model
from triune.core.printable import printable
from triune.core.scratch import own_temporary_folder
from triune.core.tensors import format_shape
from triune.coreml.feature_values import describe
from triune.coreml.source import read_source

_PROGRAMS = (".mlpackage", ".mlmodelc", ".mlmodel", ".aimodel")
_CORE_ML = "coreml, onnxruntime or reference"
_CORE_AI = "coreai, onnxruntime or interpreter"


def predict(
    program: Annotated[Path, typer.Argument(help="The .mlpackage, .mlmodelc or .aimodel to run.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="name=file, for each input: a .npy array or an image, by the program's or its source's name.",
        ),
    ] = None,
    function: Annotated[str | None, typer.Option(help="The function [default: the program's default].")] = None,
    executor: Annotated[
        Literal["coreml", "coreai", "onnxruntime", "reference", "interpreter"] | None,
        typer.Option(
            help="What computes it: Apple's runtime where it is, else ONNX Runtime, if not given. reference is slow "
            "and obvious (Core ML); interpreter is Apple's (Core AI)."
        ),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="The folder to write outputs to, as name.npy.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outputs as JSON.")] = False,
) -> None:
    """Run a Core ML or Core AI program once. States start as zeros."""
    if program.suffix not in _PROGRAMS:
        raise InvalidArgumentError(
            f"'{program}' ends in none of {', '.join(_PROGRAMS)}; an .onnx file is run by 'triune infer', and made a "
            "program by 'triune convert'"
        )
    given = {name: _read(name, file) for name, file in split_pairs(inputs or []).items()}
    with own_temporary_folder(), progress_bar() as progress:
        task = progress.add_task(f"loading {program}", total=None)
        load = _core_ai if program.suffix == ".aimodel" else _core_ml
        loaded = load(program, function, executor)
        with loaded.model as model:
            values = loaded.names.translate(given, loaded.required)
            progress.update(task, description=f"running {model.function}")
            started = time.perf_counter()
            outputs = model.predict(values, model.make_state())
            elapsed_ms = (time.perf_counter() - started) * 1000
    if save is not None:
        _save(outputs, save)
    if as_json:
        described = {name: _as_json(value) for name, value in outputs.items()}
        print_json(
            {
                "program": str(program),
                "function": model.function,
                "executor": loaded.executor,
                "elapsed_ms": elapsed_ms,
                "outputs": described,
            }
        )
        return
    table = Table("output", "datatype and shape", "values")
    for name, value in outputs.items():
        table.add_row(escaped(name), escaped(_kind_and_shape(value)), escaped_lines(_preview(value)))
    console = Console()
    console.print(table)
    console.print(f"{escaped(model.function)} in {elapsed_ms:.1f} ms, computed by {loaded.executor}", highlight=False)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A loaded function: the model, the names of its inputs, and the types and shapes of required inputs."""

    model: Model
    executor: str
    names: Names
    required: dict[str, str]


def _core_ml(program: Path, function: str | None, executor: str | None) -> _Loaded:
    if executor in ("coreai", "interpreter"):
        raise InvalidArgumentError(f"executor '{executor}' is for .aimodel; '{program.name}' takes {_CORE_ML}")
    model = coreml.load(program, function=function, executor=cast("coreml.ExecutorName | None", executor))
    features = model.interface.inputs
    names = Names(str(program), "input", [each.name for each in features], read_source(model.package).inputs)
    required = {each.name: describe(each) for each in features if not each.is_optional}
    return _Loaded(model, model.executor, names, required)


def _core_ai(program: Path, function: str | None, executor: str | None) -> _Loaded:
    if executor in ("coreml", "reference"):
        raise InvalidArgumentError(f"executor '{executor}' is for Core ML; '{program.name}' takes {_CORE_AI}")
    model = coreai.load(program, function=function, executor=cast("coreai.ExecutorName | None", executor))
    specs = model.interface.inputs
    required = {each.name: f"{each.datatype.value} of {format_shape(each.shape)}" for each in specs}
    required |= {name: f"an {image}" for name, image in model.interface.images.items()}
    return _Loaded(model, model.executor, Names(str(program), "input", list(required)), required)


def _read(name: str, file: str) -> Any:
    if Path(file).suffix == ".npy":
        return read_array(name, file)
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"input '{name}': '{file}' is not an .npy file; images need: pip install pillow"
        ) from error
    try:
        with Image.open(file) as image:
            return image.copy()
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InvalidArgumentError(
            f"cannot read input '{name}' from '{file}': {error}; give a .npy array or an image"
        ) from error


def _as_json(value: Any) -> object:
    """Convert an output to JSON: an array with its type and shape, or a label, or probabilities by label."""
    if isinstance(value, np.ndarray):
        array = cast(Any, value)
        return {"datatype": str(array.dtype), "shape": list(array.shape), "data": as_numbers(array)}
    if isinstance(value, dict):
        given = cast(dict[Any, float], value)
        return dict(zip(map(str, given), as_numbers(np.array(list(given.values()))), strict=True))
    return value


def _kind_and_shape(value: Any) -> str:
    if isinstance(value, np.ndarray):
        array = cast(Any, value)
        return f"{array.dtype}{list(array.shape)}"
    return "probabilities" if isinstance(value, dict) else "label"


def _preview(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return preview(cast(Any, value))
    if isinstance(value, dict):
        best = sorted(cast(dict[Any, float], value).items(), key=lambda each: -each[1])[:5]
        return ", ".join(f"{printable(str(label))} {probability:.4f}" for label, probability in best)
    return printable(str(value))


def _save(outputs: dict[str, Any], folder: Path) -> None:
    """Save outputs as .npy: a label as an array of rank 0, a dictionary as the array of its probabilities."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in outputs.items():
            array = np.array(list(cast(dict[Any, float], value).values())) if isinstance(value, dict) else value
            np.save(folder / f"{quote(name, safe=' :')}.npy", np.asarray(array))
    except OSError as error:
        raise InvalidArgumentError(f"cannot save to '{folder}': {error.strerror}; name another folder") from error
