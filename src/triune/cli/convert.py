"""`triune convert`: a model from one form to another, by the endings of the file names."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from triune.cli.arrays import read_array, split_pairs
from triune.cli.output import print_json, progress_bar
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.coreml.lowering import LowerOptions, Target, lower
from triune.coreml.package import read_package
from triune.coreml.raising import raise_function
from triune.coreml.verify import verify_lowered, verify_raised
from triune.graph.ane import Report as LayoutReport
from triune.graph.conversion.compared import OutputError, check_given
from triune.graph.conversion.options import Layout, Precision
from triune.graph.conversion.shapes import parse_shapes
from triune.graph.load import load

_MOST_BYTES_INLINE = 2**31 - 2**20
"""Protobuf ends at 2 GiB; larger weights go into a file beside the model."""


def convert(
    source: Annotated[Path, typer.Argument(help="model.onnx, model.mlpackage or model.mlmodelc")],
    output: Annotated[Path, typer.Option("--output", "-o", help="model.mlpackage or model.onnx; replaced.")],
    shapes: Annotated[
        list[str] | None,
        typer.Option("--shape", help="input=1,1..512 (a range), input=1,128|1,512 (one of these), input=1,64."),
    ] = None,
    constants: Annotated[
        list[str] | None,
        typer.Option("--constant", help="input=3 or input=1,2 or input=file.npy: the input becomes a constant."),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="In which floats the program computes.")] = Precision.FP32,
    keep_fp32: Annotated[
        list[str] | None, typer.Option("--keep-fp32", help="A node or operator that --precision mixed keeps in fp32.")
    ] = None,
    target: Annotated[str, typer.Option(help="The oldest system to run it: iOS15, iOS16, iOS17 or iOS18.")] = "iOS18",
    layout: Annotated[
        Layout, typer.Option(help="ane: transformers as the Neural Engine likes them, (B, C, 1, S).")
    ] = Layout.SOURCE,
    function: Annotated[str | None, typer.Option(help="Of a package with several functions, which to convert.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Run both on the same inputs and compare.")] = False,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="name=file.npy, an input to verify with; those not given are made up."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Convert ONNX to Core ML, or Core ML to ONNX."""
    started = time.monotonic()
    given = {name: read_array(name, file) for name, file in split_pairs(inputs or []).items()}
    if given and not verify:
        raise InvalidArgumentError("--input is what --verify compares with; give --verify, too")
    with progress_bar() as progress:
        task = progress.add_task("reading", total=None)

        def report(what: str) -> None:
            progress.update(task, description=what)

        match source.suffix, output.suffix:
            case ".onnx", ".mlpackage":
                if function is not None:
                    raise InvalidArgumentError("--function chooses among the functions of a package; leave it out")
                options = LowerOptions(
                    precision=precision,
                    keep_fp32=frozenset(keep_fp32 or []),
                    target=Target.parse(target),
                    shapes=parse_shapes(shapes or []),
                    constants=_constants(constants or []),
                    layout=layout,
                )
                errors, renamed, laid = _to_coreml(source, output, options, report, given if verify else None)
            case ".mlpackage" | ".mlmodel" | ".mlmodelc", ".onnx":
                if shapes or constants or keep_fp32 or layout is not Layout.SOURCE:
                    raise InvalidArgumentError(
                        "--shape, --constant, --keep-fp32 and --layout are for converting to .mlpackage"
                    )
                errors, renamed, laid = _to_onnx(source, output, function, report, given if verify else None), {}, None
            case _:
                raise InvalidArgumentError(
                    f"no conversion from '{source.name}' to '{output.name}'; one is .onnx, the other .mlpackage"
                )
    done = _Done(output, time.monotonic() - started, renamed, errors, laid)
    if as_json:
        _print_json(done)
    else:
        _print(done)


@dataclass(frozen=True, slots=True)
class _Done:
    """What there is to tell of a conversion: `renamed` from the source's names, `laid` out for the Neural Engine."""

    output: Path
    seconds: float
    renamed: Mapping[str, str]
    errors: Sequence[OutputError] | None
    laid: LayoutReport | None


def _to_coreml(
    source: Path,
    output: Path,
    options: LowerOptions,
    report: Callable[[str], None],
    given: Mapping[str, Array] | None,
) -> tuple[list[OutputError] | None, dict[str, str], LayoutReport | None]:
    model = load(source)
    check_given(model, given or {}, options.constants)
    lowered = lower(model, output, options, report=report)
    names = {**lowered.inputs, **lowered.outputs}
    renamed = {name: other for name, other in names.items() if name != other}
    if given is None:
        return None, renamed, lowered.layout
    report("running both")
    return verify_lowered(model, lowered, options, given), renamed, lowered.layout


def _to_onnx(
    source: Path, output: Path, function: str | None, report: Callable[[str], None], given: Mapping[str, Array] | None
) -> list[OutputError] | None:
    package = read_package(source)
    report("raising the program")
    model = raise_function(package, function)
    check_given(model, given or {})
    report("saving")
    # onnx publishes partial types.
    library: Any = onnx
    is_large = model.ByteSize() > _MOST_BYTES_INLINE
    beside = f"{output.name}.data" if is_large else None
    library.save(model, str(output), save_as_external_data=is_large, location=beside)
    if given is None:
        return None
    report("running both")
    return verify_raised(package, function, model, given)


def _constants(texts: Sequence[str]) -> dict[str, Array]:
    pairs = split_pairs(texts, option="--constant", form="input=1,2 or input=file.npy")
    return {name: _constant(name, body) for name, body in pairs.items()}


def _constant(name: str, body: str) -> Array:
    """One number is a scalar, several are a vector; a file has the shape that it has."""
    if body.endswith(".npy"):
        return read_array(name, body)
    try:
        numbers = [float(each) if "." in each or "e" in each else int(each) for each in body.split(",")]
    except ValueError as error:
        raise InvalidArgumentError(
            f"the constant for input '{name}' cannot be read: {error}; write 3, 1,2 or a .npy file"
        ) from error
    return np.array(numbers[0] if len(numbers) == 1 else numbers)


def _print_json(done: _Done) -> None:
    found: dict[str, object] = {
        "output": str(done.output),
        "seconds": round(done.seconds, 3),
        "renamed": done.renamed,
    }
    if done.laid is not None:
        found["layout"] = {"changed": done.laid.counts(), "left": [str(entry) for entry in done.laid.left]}
    if done.errors is not None:
        found["errors"] = [
            {
                "output": each.name,
                "shape": list(each.shape),
                # JSON has no infinity.
                "error": each.error if math.isfinite(each.error) else "Infinity",
                "largest": each.largest,
            }
            for each in done.errors
        ]
    print_json(found)


def _print(done: _Done) -> None:
    console = Console()
    text = f"[green]wrote[/] {escape(str(done.output))} in {done.seconds:.1f} s"
    console.print(text, highlight=False, soft_wrap=True)
    for name, other in done.renamed.items():
        text = f"[yellow]renamed[/] {escape(name)} to {escape(other)}: Core ML has no such names"
        console.print(text, highlight=False, soft_wrap=True)
    if done.laid is not None:
        console.print(escape(f"layout {done.laid}"), highlight=False, soft_wrap=True)
    if done.errors is None:
        return
    table = Table("output", "shape", "largest error", "largest value")
    for each in done.errors:
        shape = escape(str(list(each.shape)))
        table.add_row(escape(each.name), shape, f"{each.error:.3g}", f"{each.largest:.3g}")
    console.print(table)
