"""`triune compress`: a smaller model in a form that a unit is fast with, compared with its source."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from triune.api.compressing import compress as compressing
from triune.api.compressing.compress import Compression
from triune.api.staging import write_text
from triune.cli.arrays import split_pairs
from triune.cli.custom_ops import CustomOpFiles
from triune.cli.output import escaped, progress_bar
from triune.compression.accuracy import TextAccuracy, percent
from triune.compression.options import Activations, Calibration, Method, Per, WeightForm
from triune.compression.report import Report, as_json, page_of
from triune.core.errors import InvalidArgumentError
from triune.core.scratch import own_temporary_folder
from triune.core.units import Unit


def compress(
    model: Annotated[Path, typer.Argument(help="model.onnx, .mlpackage, .mlmodelc, .aimodel, .gguf or folder.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="model.onnx, .mlpackage, .aimodel or folder; overwritten.")
    ],
    weights: Annotated[
        WeightForm | None, typer.Option(help="The form of weights; without it, what --for gains from.")
    ] = None,
    unit: Annotated[Unit | None, typer.Option("--for", help="The unit whose form is chosen.")] = None,
    per: Annotated[Per, typer.Option(help="A scale for each output channel, or one for a tensor.")] = Per.CHANNEL,
    group: Annotated[
        int | None,
        typer.Option(help="Weights that share a scale: 32, 64 or 128; of palettes, the channels that share one."),
    ] = None,
    symmetric: Annotated[bool, typer.Option("--symmetric/--asymmetric", help="Without or with zero points.")] = True,
    bits: Annotated[int, typer.Option(help="The bits of a palette's index, 1 to 8.")] = 4,
    sparsity: Annotated[float | None, typer.Option(help="The share of weights that become 0, such as 0.5.")] = None,
    n_m: Annotated[str | None, typer.Option(help="2:4: of each 4 weights, 2 stay.")] = None,
    activations: Annotated[
        Activations | None,
        typer.Option(help="int8: in ranges by calibration; dynamic: in the range of each run, MatMul alone."),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Samples: an .npz, a folder of .npz or .npy, or text of a decoder's; else made up."),
    ] = None,
    calibration: Annotated[Calibration, typer.Option(help="How ranges of activations are found.")] = Calibration.MINMAX,
    method: Annotated[
        Method, typer.Option(help="How levels of integers are found; best: all are tried, what agrees best is kept.")
    ] = Method.NEAREST,
    keep_accuracy: Annotated[
        str | None, typer.Option(help="99.2%: the least agreement; as few layers as needed stay precise for it.")
    ] = None,
    max_drop: Annotated[str | None, typer.Option(help="0.5%: the same as --keep-accuracy 99.5%.")] = None,
    shapes: Annotated[
        list[str] | None, typer.Option("--shape", help="input=1,128: the shape of an input with free dimensions.")
    ] = None,
    custom_ops: CustomOpFiles = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with all figures: out.html.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the same figures as JSON: out.json.")] = None,
    measures: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure the speed of both, for the report.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Write the result whatever its agreement is.")] = False,
) -> None:
    """Compress a model, compare the result with the model, and write the result if the outputs agree."""
    with own_temporary_folder(), progress_bar() as progress:
        task = progress.add_task("reading", total=None)

        def tell(what: str) -> None:
            progress.update(task, description=what)

        done = compressing.compress(
            model,
            output,
            weights=weights,
            per=per,
            group=group,
            symmetric=symmetric,
            bits=bits,
            sparsity=sparsity,
            n_m=None if n_m is None else _n_m(n_m),
            activations=activations,
            calibrate=calibrate,
            calibration=calibration,
            method=method,
            unit=None if unit is None else unit.value,
            keep_accuracy=_kept(keep_accuracy, max_drop),
            shapes=split_pairs(shapes or [], option="--shape", form="input=1,128"),
            custom_ops=custom_ops or (),
            measure=measures and (report is not None or json_file is not None),
            force=force,
            report=tell,
        )
    # Print first: the model is written whatever happens to the files of the report.
    _print(done)
    if json_file is not None:
        write_text(json_file, json.dumps(as_json(done.report), indent=2, allow_nan=False) + "\n")
    if report is not None:
        write_text(report, page_of(done.report))


def _n_m(text: str) -> tuple[int, int]:
    n, separator, m = text.partition(":")
    if not separator or not n.isdecimal() or not m.isdecimal():
        raise InvalidArgumentError(f"--n-m {text!r} is not of the form 2:4")
    return int(n), int(m)


def _kept(keep_accuracy: str | None, max_drop: str | None) -> float | None:
    if keep_accuracy is not None and max_drop is not None:
        raise InvalidArgumentError("--keep-accuracy and --max-drop say the same: give one of them")
    if keep_accuracy is not None:
        return _share(keep_accuracy, "--keep-accuracy")
    return None if max_drop is None else 1 - _share(max_drop, "--max-drop")


def _share(text: str, option: str) -> float:
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise InvalidArgumentError(f"{option} {text!r} is no share: write 99.2% or 0.992") from None


def _print(done: Compression) -> None:
    console, report = Console(), done.report
    text = (
        f"[green]wrote[/] {escaped(str(done.path))}: {escaped(report.form)}; {_size(report.source_bytes)} before, "
        f"{_size(report.target_bytes)} now"
    )
    console.print(text, highlight=False, soft_wrap=True)
    for each in report.methods:
        kept = ", kept" if each.is_kept else ""
        console.print(f"{each.name}: {escaped(each.note)}{kept}", highlight=False, soft_wrap=True)
    if report.text is not None:
        _print_text(console, report.text)
    else:
        _print_outputs(console, report)
    _print_layers(console, report)
    said = f"compared on {escaped(report.samples)}"
    if report.is_made_up:
        said += "; yours, with --calibrate, tell more"
    console.print(said, highlight=False, soft_wrap=True)
    for note in report.notes:
        console.print(f"[yellow]note[/] {escaped(note)}", highlight=False, soft_wrap=True)


def _print_text(console: Console, text: TextAccuracy) -> None:
    table = Table("perplexity before", "now", "same most probable token", "divergence", "tokens")
    figures = (f"{text.perplexity_before:.4g}", f"{text.perplexity:.4g}", f"{text.top1:.2%}", f"{text.divergence:.3g}")
    table.add_row(*figures, f"{text.num_tokens:,}")
    console.print(table)


def _print_outputs(console: Console, report: Report) -> None:
    table = Table("output", "agreement", "by", "largest error", "mean error", "largest value", "dB")
    for each in report.outputs:
        numbers = (f"{value:.3g}" for value in (each.largest_error, each.mean_error, each.largest))
        table.add_row(escaped(each.name), percent(each.agreement), each.measure, *numbers, f"{each.sqnr_db:.1f}")
    console.print(table)


def _print_layers(console: Console, report: Report) -> None:
    forms: dict[str, int] = {}
    for layer in report.layers:
        forms[layer.form] = forms.get(layer.form, 0) + 1
    text = ", ".join(f"{count} in {escaped(form)}" for form, count in forms.items())
    console.print(f"layers: {text}", highlight=False, soft_wrap=True)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.1f} kB"
