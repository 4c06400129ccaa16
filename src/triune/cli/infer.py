"""`triune infer`: run a model once, without a server."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from triune import app
from triune.api.models import load, load_raw
from triune.cli.arrays import as_numbers, preview, read_array, split_pairs
from triune.cli.custom_ops import CustomOpFiles
from triune.cli.names import Names
from triune.cli.output import escaped, escaped_lines, print_json, progress_bar
from triune.cli.placements import placement_json, print_placement
from triune.config.model_config import ModelConfig, TensorConfig
from triune.config.results import classify
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.core.placement import Placement
from triune.core.printable import printable
from triune.core.requests import InferenceRequest, InferenceResponse, RequestedOutput
from triune.core.tensors import TensorSpec, describe, format_shape
from triune.coreml.package import read_package
from triune.coreml.source import Source, as_program_takes, read_source
from triune.graph.custom import read_custom_ops
from triune.repository.settings import ControlMode, RepositorySettings
from triune.runtimes.machine import this_machine
from triune.runtimes.registry import PACKAGE_SUFFIXES
from triune.scheduling.models import LoadedVersion


def infer(
    model: Annotated[str, typer.Argument(help="A model's name in the repository, or the path of a model file.")],
    inputs: Annotated[
        list[str],
        typer.Option("--input", help="name=file.npy, for each input, by the model's or its source's name."),
    ],
    repository: Annotated[
        list[Path] | None,
        typer.Option("--repository", "--model-repository", help="The repository that contains the model."),
    ] = None,
    version: Annotated[int | None, typer.Option(min=0, help="The version [default: the newest].")] = None,
    outputs: Annotated[list[str] | None, typer.Option("--output", help="An output to compute [default: all].")] = None,
    classes: Annotated[int, typer.Option(min=0, help="Show the labels of the N largest values of each output.")] = 0,
    plan: Annotated[
        str | None,
        typer.Option(help="Of a file: cut it, for latency or energy, or by 'cpu to clip_40, amx'.", show_default=False),
    ] = None,
    plan_chip: Annotated[str | None, typer.Option(help="The chip to plan for [default: this machine].")] = None,
    custom_ops: CustomOpFiles = None,
    save: Annotated[Path | None, typer.Option(help="The folder to write outputs to, as name.npy.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outputs as JSON.")] = False,
) -> None:
    """Run a model once on inputs from .npy files."""
    arrays = {input_name: read_array(input_name, file) for input_name, file in split_pairs(inputs).items()}
    placement: Placement | None = None
    if repository:
        if plan is not None or plan_chip is not None:
            raise InvalidArgumentError("--plan is for a model file; a model in a repository has its plan in its config")
        response = asyncio.run(_infer(repository, model, version, arrays, outputs or [], classes, custom_ops or ()))
    else:
        if version is not None:
            raise InvalidArgumentError(f"--version {version} is of a model in a repository; give --repository, too")
        response, placement = _infer_file(
            Path(model), arrays, outputs or [], classes, plan, plan_chip, custom_ops or ()
        )
    if save is not None:
        _save(response, save)
    if as_json:
        placed = {} if placement is None else {"placement": placement_json(placement)}
        print_json({"model": response.model, "version": response.version, "outputs": _as_json(response), **placed})
        return
    table = Table("output", "datatype and shape", "values")
    for output, array in response.outputs.items():
        table.add_row(escaped(output), escaped(describe(array)), escaped_lines(_preview(array)))
    Console().print(table)
    if placement is not None:
        print_placement(placement, Console())


async def _infer(
    folders: Sequence[Path],
    name: str,
    version: int | None,
    arrays: dict[str, Array],
    outputs: list[str],
    classes: int,
    custom_ops: Sequence[Path],
) -> InferenceResponse:
    machine = this_machine(custom_ops=read_custom_ops(custom_ops))
    repository = app.make_repository(RepositorySettings(folders, ControlMode.EXPLICIT, [name]), machine)
    with progress_bar() as progress:
        task = progress.add_task(f"loading {name}", total=None)
        async with app.opened(repository) as server:
            progress.update(task, description=f"running {name}")
            model = server.model(name, version)
            source = _source(model)
            inputs = Names(model.config.name, "input", list(model.config.inputs), source.inputs)
            own_outputs = Names(model.config.name, "output", list(model.config.outputs), source.outputs)
            given = as_program_takes(inputs.translate(arrays, _required(model.config)), source)
            chosen = [own_outputs.find(each) for each in outputs] or (list(own_outputs.own) if classes else [])
            wanted = tuple(RequestedOutput(output, classes) for output in chosen)
            return await server.infer(InferenceRequest(name, given, version, wanted))


def _required(config: ModelConfig) -> dict[str, str]:
    """The required inputs, each with a text of its type and shape."""
    batch = (-1,) if config.batching.max_batch_size else ()
    needed = [each for each in config.inputs.values() if not each.is_optional]
    return {each.name: f"{each.datatype.value}{format_shape((*batch, *each.dims))}" for each in needed}


def _source(model: LoadedVersion) -> Source:
    """The names that a Core ML package's tensors had in its source; empty for other models."""
    path = model.config.path
    return read_source(read_package(path)) if path.suffix == ".mlpackage" else Source()


def _infer_file(
    path: Path,
    arrays: dict[str, Array],
    outputs: list[str],
    classes: int,
    plan: str | None,
    chip: str | None,
    custom_ops: Sequence[Path],
) -> tuple[InferenceResponse, Placement | None]:
    """Run a model file that is not in a repository. It is loaded from its own folder, where its external weights are.

    Returns:
        the response, and where it was computed if there was a plan.
    """
    if not (path.is_file() or (path.is_dir() and path.suffix in PACKAGE_SUFFIXES)):
        raise InvalidArgumentError(f"'{path}' is not a model file; to run a model of a repository, give --repository")
    with progress_bar() as progress:
        task = progress.add_task(f"loading {path}", total=None)
        is_whole = plan is None and chip is None
        with (
            load_raw(path, custom_ops) if is_whole else load(path, plan=plan, chip=chip, custom_ops=custom_ops)
        ) as model:
            placement = model.placement
            progress.update(task, description=f"running {path}")
            source = read_source(read_package(path)) if path.suffix == ".mlpackage" else Source()
            specs = {spec.name: spec for spec in model.signature.outputs}
            inputs = Names(str(path), "input", [spec.name for spec in model.signature.inputs], source.inputs)
            own_outputs = Names(str(path), "output", list(specs), source.outputs)
            needed = [spec for spec in model.signature.inputs if not spec.is_optional]
            required = {spec.name: f"{spec.datatype.value}{format_shape(spec.shape)}" for spec in needed}
            given = as_program_takes(inputs.translate(arrays, required), source)
            answers = model.run(given, [own_outputs.find(each) for each in outputs])
    if classes:
        answers = {name: _classified(array, classes, specs[name]) for name, array in answers.items()}
    return InferenceResponse(path.stem, 1, answers), placement


def _classified(array: Array, classes: int, spec: TensorSpec) -> Array:
    """Find the `classes` best classes (Triton's classification) of each row if the first dimension is dynamic, else of
    the whole array.
    """
    config = TensorConfig(spec.name, spec.datatype, spec.shape)
    return classify(array, classes, config, has_batch=spec.shape[:1] == (-1,))


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
            # Quote the output's name, since names of TensorFlow's outputs contain slashes.
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
        return ", ".join(printable(each.decode("utf-8", "replace")) for each in array.flat[:5])
    return preview(array)
