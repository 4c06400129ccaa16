"""`triune infer`: one inference, without a server."""

import asyncio
import contextlib
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from triune import app
from triune.cli.arrays import as_numbers, preview, read_array, split_pairs
from triune.cli.names import Names
from triune.cli.output import print_json, progress_bar
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceRequest, InferenceResponse, RequestedOutput
from triune.core.tensors import describe, format_shape
from triune.coreml.package import read_package
from triune.coreml.source import Source, read_source
from triune.repository.complete import PACKAGE_SUFFIXES
from triune.repository.config import ModelConfig
from triune.repository.model import LoadedVersion
from triune.repository.repository import ControlMode


def infer(
    model: Annotated[str, typer.Argument(help="A model's name in the repository, or the path of a model file.")],
    inputs: Annotated[
        list[str],
        typer.Option("--input", help="name=file.npy, for each input. Names are the model's, or its source's."),
    ],
    repository: Annotated[
        list[Path] | None, typer.Option("--repository", "--model-repository", help="Where the model is.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=0, help="The version; the newest if not given.")] = None,
    outputs: Annotated[list[str] | None, typer.Option("--output", help="An output to compute; all if none.")] = None,
    classes: Annotated[int, typer.Option(min=0, help="Name the largest so many values of each output.")] = 0,
    save: Annotated[Path | None, typer.Option(help="A folder to write each output to, as name.npy.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outputs as JSON.")] = False,
) -> None:
    """Run a model once on arrays in .npy files."""
    arrays = {input_name: read_array(input_name, file) for input_name, file in split_pairs(inputs).items()}
    with _repository_of(model, repository or []) as (folders, name):
        response = asyncio.run(_infer(folders, name, version, arrays, outputs or [], classes))
    if save is not None:
        _save(response, save)
    if as_json:
        print_json({"model": response.model, "version": response.version, "outputs": _as_json(response)})
        return
    table = Table("output", "datatype and shape", "values")
    for output, array in response.outputs.items():
        table.add_row(*(escape(text) for text in (output, describe(array), _preview(array))))
    Console().print(table)


async def _infer(
    folders: Sequence[Path], name: str, version: int | None, arrays: dict[str, Array], outputs: list[str], classes: int
) -> InferenceResponse:
    repository = app.make_repository(folders, control_mode=ControlMode.EXPLICIT, startup_models=[name])
    with progress_bar() as progress:
        task = progress.add_task(f"loading {name}", total=None)
        async with app.opened(repository) as server:
            progress.update(task, description=f"running {name}")
            model = server.model(name, version)
            inputs, own_outputs = _names(model, folders)
            given = inputs.translate(arrays, _required(model.config))
            chosen = [own_outputs.find(each) for each in outputs] or (list(own_outputs.own) if classes else [])
            wanted = tuple(RequestedOutput(output, classes) for output in chosen)
            return await server.infer(InferenceRequest(name, given, version, wanted))


def _required(config: ModelConfig) -> dict[str, str]:
    """The inputs that must be given, and what they take."""
    batch = (-1,) if config.batching.max_batch_size else ()
    needed = [each for each in config.inputs.values() if not each.is_optional]
    return {each.name: f"{each.datatype.value}{format_shape((*batch, *each.dims))}" for each in needed}


def _names(model: LoadedVersion, folders: Sequence[Path]) -> tuple[Names, Names]:
    """Those of a model's inputs and outputs; of a Core ML package, those of its source, too."""
    config = model.config
    paths = [folder / config.name / str(model.version) / config.filename for folder in folders]
    package = next((path for path in paths if path.suffix == ".mlpackage" and path.exists()), None)
    source = Source() if package is None else read_source(read_package(package))
    inputs = Names(config.name, "input", list(config.inputs), source.inputs)
    return inputs, Names(config.name, "output", list(config.outputs), source.outputs)


@contextlib.contextmanager
def _repository_of(model: str, repository: list[Path]) -> Generator[tuple[list[Path], str]]:
    """The folders that hold the model, and its name in them; a lone model file gets a repository for the moment."""
    path = Path(model)
    if repository:
        yield repository, model
    elif path.is_file() or (path.is_dir() and path.suffix in PACKAGE_SUFFIXES):
        with tempfile.TemporaryDirectory() as folder:
            version = Path(folder) / path.stem / "1"
            version.mkdir(parents=True)
            (version / f"model{path.suffix}").symlink_to(path.resolve())
            yield [Path(folder)], path.stem
    else:
        raise InvalidArgumentError(f"'{model}' is no model file; to run a model of a repository, give --repository")


def _as_json(response: InferenceResponse) -> dict[str, object]:
    return {
        name: {
            "datatype": describe(array).partition("[")[0],
            "shape": list(array.shape),
            "data": [each.decode("utf-8", "replace") for each in array.flat]
            if array.dtype == np.object_
            else as_numbers(array.astype(np.float32 if array.dtype.kind == "V" else array.dtype)),
        }
        for name, array in response.outputs.items()
    }


def _save(response: InferenceResponse, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for output, array in response.outputs.items():
            # Names of outputs may hold slashes, as TensorFlow's do.
            path = folder / f"{quote(output, safe=' :')}.npy"
            np.save(path, _as_fixed_length(output, array) if array.dtype == np.object_ else array)
    except OSError as error:
        raise InvalidArgumentError(f"cannot save to '{folder}': {error.strerror}; name another folder") from error


def _as_fixed_length(output: str, array: Array) -> Array:
    if any(each.endswith(b"\0") for each in array.flat):
        raise InvalidArgumentError(
            f"output '{output}' has strings that end in zero bytes, which a .npy file cannot keep; leave --save out"
        )
    return array.astype(np.bytes_)


def _preview(array: Array) -> str:
    if array.dtype == np.object_:
        return ", ".join(each.decode("utf-8", "replace") for each in array.flat[:5])
    return preview(array)
