"""`triune convert`: convert a model between formats, by the suffixes of the file names."""

import math
import time
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from triune.api import converting
from triune.api.converting import DEFAULT_SYSTEM, Conversion
from triune.cli.arrays import read_array, read_constants, split_pairs
from triune.cli.custom_ops import CustomOpFiles
from triune.cli.output import escaped, escaped_lines, print_json, progress_bar
from triune.core.errors import InvalidArgumentError
from triune.core.scratch import own_temporary_folder
from triune.graph.audit import Finding
from triune.graph.conversion.options import Layout, Precision
from triune.graph.conversion.shapes import parse_shapes
from triune.graph.verify import Verdict


class CacheChoice(Enum):
    """The forms of cache for a language model's program: see `triune.convert`."""

    STATE = "state"
    ARGUMENT = "argument"


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="model.onnx, .mlpackage, .mlmodelc, .aimodel or .gguf, a Hugging Face directory, or a model's folder "
            "in a repository; of other frameworks .pt2, .keras, .tflite, .skops, .ubj, .json, .txt, or a SavedModel's "
            "folder."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="model.mlpackage, .aimodel or .onnx; overwritten.")],
    shapes: Annotated[
        list[str] | None,
        typer.Option("--shape", help="input=1,64, input=1,1..512 (a range) or input=1,128|1,512 (enumerated shapes)."),
    ] = None,
    constants: Annotated[
        list[str] | None,
        typer.Option("--constant", help="input=3 or input=1,2 or input=file.npy: the input becomes a constant."),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="The precision of the program's computation.")] = Precision.FP32,
    keep_fp32: Annotated[
        list[str] | None, typer.Option("--keep-fp32", help="A node or operator that --precision mixed keeps in fp32.")
    ] = None,
    target: Annotated[
        str, typer.Option(help="The oldest system that can run the program: iOS15, iOS16, iOS17 or iOS18.")
    ] = DEFAULT_SYSTEM,
    layout: Annotated[
        Layout, typer.Option(help="ane rewrites transformers to the Neural Engine's layout, (B, C, 1, S).")
    ] = Layout.SOURCE,
    function: Annotated[
        str | None, typer.Option(help="The source's function to convert; from .onnx, the new function's name.")
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--add", help="name=other.onnx: add a function; equal weights are shared."),
    ] = None,
    states: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            help="past=present: make the input past a state of the program, updated from the output present.",
        ),
    ] = None,
    pack_weights: Annotated[
        bool,
        typer.Option("--pack-weights", help="Compress the .aimodel's weights losslessly: look-up tables, bitmasks."),
    ] = False,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            help="x=rgb24 (argb32, bgra32), or x=rgb24,scale=0.5,bias=1|2|3: make the floats x [1,3,H,W] an image "
            "of the .aimodel, with x = bytes * scale + bias.",
        ),
    ] = None,
    contexts: Annotated[
        str | None,
        typer.Option(
            "--context",
            help="256,1024: the sizes in tokens of the caches of a language model's program, which has functions "
            "prefill_256, decode_256 and so on.",
        ),
    ] = None,
    cache: Annotated[
        CacheChoice | None,
        typer.Option(help="Whether a language model's program has its cache as states (the default), or as arguments."),
    ] = None,
    verify: Annotated[
        bool | None,
        typer.Option(
            "--verify/--no-verify",
            help="Compare source and result on the same inputs; if they differ, write nothing and exit with 1. In fp16 "
            "the default, for a minute at most.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Compare the program's answers before and after each compiler pass; if a pass changes an answer, "
            "write nothing and exit with 1.",
        ),
    ] = False,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="name=file.npy: an input for --verify or --check; other inputs are generated."),
    ] = None,
    custom_ops: CustomOpFiles = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a report as JSON.")] = False,
) -> None:
    """Convert ONNX to Core ML or Core AI, Core ML or Core AI to ONNX, or a transformer's checkpoint to any of them."""
    started = time.monotonic()
    given = {name: read_array(name, file) for name, file in split_pairs(inputs or []).items()}
    with own_temporary_folder(), progress_bar() as progress:
        task = progress.add_task("reading", total=None)

        def report(what: str) -> None:
            progress.update(task, description=what)

        done = converting.convert(
            source,
            output,
            precision=precision,
            keep_fp32=keep_fp32 or (),
            shapes=parse_shapes(shapes or []),
            constants=read_constants(constants or []),
            layout=layout,
            system=target,
            function=function,
            functions=split_pairs(more or [], option="--add", form="name=other.onnx"),
            states=split_pairs(states or [], option="--state", form="past=present"),
            images=split_pairs(images or [], option="--image", form="x=rgb24"),
            pack_weights=pack_weights,
            verify=verify,
            check=check,
            inputs=given,
            custom_ops=custom_ops or (),
            contexts=_numbers(contexts),
            cache=None if cache is None else cache.value,
            report=report,
        )
    seconds = time.monotonic() - started
    if as_json:
        _print_json(output, seconds, done)
    else:
        _print(output, seconds, done, is_asked=verify is not None)
        if done.verdict is not None and not given:
            text = "compared on made-up inputs; yours, with --input name=file.npy, tell more"
            Console().print(text, highlight=False, soft_wrap=True)
    if done.path is None:
        raise typer.Exit(1)


def _numbers(text: str | None) -> list[int]:
    parts = [] if text is None else text.split(",")
    if not all(each.isascii() and each.isdigit() and len(each) < 10 for each in parts):
        raise InvalidArgumentError(f"--context is {text!r}; it is sizes in tokens, such as 256,1024")
    return [int(each) for each in parts]


def _print_json(output: Path, seconds: float, done: Conversion) -> None:
    found: dict[str, object] = {
        "output": str(output),
        "seconds": round(seconds, 3),
        "renamed": done.renamed,
    }
    if done.notes:
        found["notes"] = list(done.notes)
    if done.layout is not None:
        found["layout"] = {"changed": done.layout.counts(), "left": [str(entry) for entry in done.layout.left]}
    if done.findings is not None:
        found["findings"] = [_as_json(each) for each in done.findings]
        found["written"] = done.path is not None
    if done.not_compared:
        found["not_compared"] = done.not_compared
    if done.verdict is not None:
        found["verdict"] = done.verdict.value
        found["written"] = done.path is not None
        found["errors"] = [
            {
                "output": each.name,
                "verdict": each.verdict.value,
                "shape": list(each.shape),
                **({"computed_shape": list(each.computed)} if each.computed is not None else {}),
                # Write infinity as text, since JSON has no number for it.
                "error": each.error if math.isfinite(each.error) else "Infinity",
                "allowed": each.allowed if math.isfinite(each.allowed) else "Infinity",
                "largest": each.largest,
                "inputs": each.inputs,
                "constant": each.is_constant,
                "random": each.is_random,
            }
            for each in done.outputs
        ]
    print_json(found)


def _as_json(finding: Finding) -> dict[str, object]:
    difference = finding.difference
    return {
        "pass": finding.step,
        "output": finding.output,
        "inputs": finding.inputs,
        "index": list(difference.index),
        "before": difference.before,
        "after": difference.after,
    }


def _print(output: Path, seconds: float, done: Conversion, *, is_asked: bool) -> None:
    console = Console()
    text = f"[green]wrote[/] {escaped(str(output))} in {seconds:.1f} s"
    if done.path is None:
        option = "--verify" if done.verdict is Verdict.WRONG else "--check"
        text = f"[red]not written[/]: {escaped(str(output))} would answer wrongly; without {option} it is written"
    console.print(text, highlight=False, soft_wrap=True)
    for name, other in done.renamed.items():
        text = f"[yellow]renamed[/] {escaped(name)} to {escaped(other)}: Core ML has no such names"
        console.print(text, highlight=False, soft_wrap=True)
    for note in done.notes:
        console.print(f"[yellow]note[/] {escaped(note)}", highlight=False, soft_wrap=True)
    if done.layout is not None:
        console.print(escaped_lines(f"layout {done.layout}"), highlight=False, soft_wrap=True)
    for finding in done.findings or ():
        console.print(f"[red]WRONG[/] {escaped(str(finding))}", highlight=False, soft_wrap=True)
    if done.findings is not None and not done.findings:
        console.print("[green]checked[/] no pass changes an answer", highlight=False, soft_wrap=True)
    if done.not_compared:
        text = f"[yellow]not compared[/] {escaped(done.not_compared)}; --verify waits without a limit"
        console.print(text, highlight=False, soft_wrap=True)
    if done.verdict is None or not is_asked:
        return
    table = Table("output", "shape", "error", "largest", "allowed", "inputs", "verdict")
    for each in done.outputs:
        other = f", not {list(each.computed)}" if each.computed is not None else ""
        shape = escaped(f"{list(each.shape)}{other}")
        color = {Verdict.RIGHT: "green", Verdict.WRONG: "red", Verdict.UNKNOWN: "yellow"}[each.verdict]
        numbers = (f"{number:.3g}" for number in (each.error, each.largest, each.allowed))
        verdict = f"[{color}]{each.verdict.value}[/]"
        table.add_row(escaped(each.name), shape, *numbers, each.inputs, verdict)
    console.print(table)
    for each in done.outputs:
        if each.is_constant:
            text = (
                f"[yellow]note[/] output '{escaped(each.name)}' had one value in all answers (of {each.largest:.3g} at "
                "most), which tells next to nothing: give inputs with --input"
            )
            console.print(text, highlight=False, soft_wrap=True)
        elif each.is_random:
            text = (
                f"[yellow]note[/] output '{escaped(each.name)}' is random: two runs of the source on the same inputs "
                "differ, so no answer can be told right or wrong"
            )
            console.print(text, highlight=False, soft_wrap=True)
