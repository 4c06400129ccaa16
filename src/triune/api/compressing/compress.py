"""`triune.compress`: quantize or prune a model in a form that a unit computes fast, and report the loss of accuracy."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias

from onnx import ModelProto

from triune.api.checkpoints import is_checkpoint
from triune.api.compressing.forms import (
    PROGRAMS,
    MethodName,
    WeightsName,
    check_names,
    checkpoint_options_of,
    form_of,
    least_agreement,
    options_of,
)
from triune.api.compressing.programs import convert_compressed, limits_of, outputs_of_program, require_arrays
from triune.api.compressing.results import layers_of, notes_of, require_agreement, timed
from triune.api.compressing.text import compress_text
from triune.api.custom import BodyCheck, with_custom_ops
from triune.api.planning import opened_graph
from triune.api.staging import publish, require_replaceable, staged
from triune.api.timing import speeds_of, units_here
from triune.compression.options import Activations, Calibration, Method, Options, Per, WeightForm
from triune.compression.plan import Built, Plan
from triune.compression.report import Method as TriedMethod
from triune.compression.report import Report, Timed
from triune.compression.samples import Samples, made_up, read_samples
from triune.compression.save import save
from triune.compression.search import Comparison, agreement_of, search
from triune.core.disk import writing
from triune.graph.conversion.shapes import InputShape, apply_shapes, inputs_of, parse_shapes
from triune.graph.custom import CustomOps, CustomOpsGiven, read_custom_ops
from triune.graph.custom.foreign import require_defined
from triune.graph.load import external_data, load, read_model, require_valid
from triune.graph.weight_files import WeightFile
from triune.graph.weights import without_weights

Tell: TypeAlias = Callable[[str], None]

_SLOWER: Final = 1.1
"""A call counts as slower if it takes this many times as long as before. Smaller differences may be noise."""

_CORE_ML = (".mlpackage", ".mlmodel", ".mlmodelc")


@dataclass(frozen=True, slots=True)
class Compression:
    """The result of a compression.

    Attributes:
        path: the file that was written.
        report: the changes, and the loss of accuracy.
    """

    path: Path
    report: Report


def compress(
    source: Path | str,
    target: Path | str,
    *,
    weights: WeightsName | WeightForm | None = None,
    per: Literal["tensor", "channel"] | Per = Per.CHANNEL,
    group: int | None = None,
    symmetric: bool = True,
    bits: int = 4,
    sparsity: float | None = None,
    n_m: tuple[int, int] | None = None,
    activations: Literal["int8", "dynamic"] | Activations | None = None,
    calibrate: Path | str | None = None,
    calibration: Literal["minmax", "percentile", "entropy"] | Calibration = Calibration.MINMAX,
    method: MethodName | Method = Method.NEAREST,
    unit: Literal["cpu", "amx", "gpu", "ane"] | None = None,
    keep_accuracy: float | None = None,
    shapes: Mapping[str, str] | None = None,
    custom_ops: CustomOpsGiven = (),
    measure: bool = False,
    force: bool = False,
    report: Tell | None = None,
) -> Compression:
    """Compress a model, compare the result with its source, and write the result if the outputs agree.

    Args:
        source: a .onnx; or a .mlpackage, .mlmodelc or .aimodel, which is brought to ONNX first; or a decoder's
            checkpoint, a .gguf or a directory.
        target: a .onnx, .mlpackage or .aimodel, for a checkpoint a directory; an existing one is replaced.
        weights: the form of the weights: "int8", "int4", "fp16", "bf16", "palette" or "sparse". None means the form
            from which `unit` gains most.
        per: "channel" for a scale for each output channel, "tensor" for one scale for the whole tensor.
        group: the number of weights along the input channels that share a scale: 32, 64 or 128. For palettes, the
            number of output channels that share a palette.
        symmetric: whether the integers represent 0 by 0 (no zero point).
        bits: the number of bits of a palette's index.
        sparsity: the fraction of the weights, 0 to 1, that become 0.
        n_m: (2, 4) keeps 2 of each 4 weights along the input channels.
        activations: "int8" for ranges by calibration, "dynamic" for the range of each run (MatMul alone).
        calibrate: samples (`compression.samples.read_samples`), or for a checkpoint a text. None generates inputs, or
            takes a text that comes with Python.
        calibration: the method that determines ranges.
        method: the method that determines the integer levels.
        unit: the unit for which the form is chosen if `weights` is None.
        keep_accuracy: the least agreement of each output with the source's, 0 to 1. To reach it, as few layers as
            possible keep a higher precision.
        shapes: the shapes of inputs with free dimensions: "1,128", or for a program "1,1..512". Without an entry, an
            input of a .mlpackage or .aimodel keeps the range of shapes that the source allows.
        custom_ops: custom operators (`custom_op`), or files that define them. Those with a body become ONNX's
            operators; those that numpy computes stay in a .onnx.
        measure: whether to measure source and result on the units of this machine.
        force: whether to write the result whatever its agreement is.
        report: called with a message at each step.

    Raises:
        NotFoundError: there is no such source, or no samples.
        InvalidArgumentError: an option is wrong, or does not apply; samples do not fit; or the disk is full.
        UnsupportedError: the model has nothing to compress or cannot be converted, or an operator is not known; or the
            result agrees less than `keep_accuracy`, or `LEAST`, and `force` is not set.
    """
    source, target, tell = Path(source), Path(target), report or _tell_nobody
    written_form = partial(
        form_of, weights, per=per, group=group, symmetric=symmetric, bits=bits, sparsity=sparsity, n_m=n_m,
        activations=activations, method=method,
    )  # fmt: skip
    if is_checkpoint(source):
        form = checkpoint_options_of(unit, written_form())
        with writing(target):
            done = compress_text(
                source,
                target,
                form,
                calibrate=None if calibrate is None else Path(calibrate),
                keep_accuracy=keep_accuracy,
                least=least_agreement(keep_accuracy),
                measure=measure,
                force=force,
                tell=tell,
            )
        return Compression(target, done)
    check_names(source, target)
    require_replaceable(target)
    if source.suffix in _CORE_ML and target.suffix == ".mlpackage" and source.exists():
        require_arrays(source)
    least = least_agreement(keep_accuracy)
    with writing(target), ExitStack() as stack:
        tell("reading")
        given = limits_of(source) | parse_shapes([f"{name}={shape}" for name, shape in (shapes or {}).items()])
        ops, where = read_custom_ops(custom_ops), f"a compression to {target.suffix}"
        check = BodyCheck({}, given, is_asked=False)
        resolved = stack.enter_context(
            with_custom_ops(source, ops, where, check, tell, keeps_numpy=target.suffix == ".onnx")
        )
        original = stack.enter_context(opened_graph(resolved.path, None, tell))
        require_defined(original, ops, where)
        # Check the model without its weights, which ONNX's checker would refuse.
        require_valid(without_weights(original))
        options = options_of(original, unit, target, written_form(), calibration)
        samples = _samples(original, calibrate, given, ops)
        file = stack.enter_context(WeightFile())
        plan, comparison, methods = _chosen(
            original, options, samples, file, ops, is_standard=target.suffix in PROGRAMS, tell=tell
        )
        options = plan.options
        found = search(plan, options.weights, comparison, keep_accuracy, tell)
        require_agreement(found, found.outputs, least, is_searched=keep_accuracy is not None, force=force)
        staging = stack.enter_context(staged(target))
        notes: list[str] = list(resolved.notes)
        if target.suffix == ".onnx":
            tell("writing")
            save(found.built.model, staging)
            written = load(staging)
            require_valid(without_weights(written))
            outputs = comparison.outputs_of(Built(written))
        else:
            notes += convert_compressed(found.built.model, staging, options, given, samples, tell)
            tell("comparing")
            outputs = outputs_of_program(staging, samples.comparison, comparison.expected)
        require_agreement(found, outputs, least, is_searched=keep_accuracy is not None, force=force)
        before: list[Timed] = []
        after: list[Timed] = []
        if measure:
            for each in units_here():
                tell(f"measuring on {each.value}")
                expected = comparison.expected[0]
                one, other = speeds_of((resolved.path, staging), each, samples.comparison[0], ops)
                before.append(timed(one, expected))
                after.append(timed(other, expected))
        sizes = _bytes_of(source), _bytes_of(staging)
        publish(staging, target)
    notes += notes_of(options, target, plan, found, samples)
    notes += [
        f"on {one.unit} a call takes longer than before: {other.latency_ms:.3g} ms, {one.latency_ms:.3g} ms before"
        for one, other in zip(before, after, strict=True)
        if one.latency_ms and other.latency_ms and other.latency_ms > _SLOWER * one.latency_ms
    ]
    layers = layers_of(plan, found)
    done = Report(
        source.name, target.name, options.described, *sizes, samples.origin, samples.is_made_up, outputs,
        agreement_of(outputs), least, layers, plan.kept, before, after, notes, methods,
    )  # fmt: skip
    return Compression(target, done)


def _chosen(
    original: ModelProto,
    options: Options,
    samples: Samples,
    file: WeightFile,
    ops: CustomOps,
    *,
    is_standard: bool,
    tell: Tell,
) -> tuple[Plan, Comparison, list[TriedMethod]]:
    """Choose the method with the best agreement, or the first of several with equal agreement. Returns its plan, the
    comparison, and the figures of all methods if there are several.
    """
    plans: list[Plan] = []
    tried: list[tuple[float, str]] = []
    comparison: Comparison | None = None
    for method in options.methods:
        tell(f"preparing: {method.value}")
        copy = ModelProto()
        copy.CopyFrom(original)
        one = replace(options, method=method)
        plans.append(Plan(copy, one, samples.calibration, file, is_standard=is_standard, ops=ops))
        comparison = comparison or Comparison(plans[-1], samples.comparison)
        if len(options.methods) > 1:
            outputs = comparison.outputs_of(plans[-1].build(plans[-1].everything(options.weights)))
            worst = min(outputs, key=lambda each: each.agreement)
            words = f"'{worst.name}' agrees by {worst.agreement:.3%} ({worst.measure}), {worst.sqnr_db:.1f} dB"
            tried.append((agreement_of(outputs), words))
    assert comparison is not None
    if not tried:
        return plans[0], comparison, []
    agreements = [agreement for agreement, _ in tried]
    best = agreements.index(max(agreements))
    methods = [
        TriedMethod(method.value, agreement, words, method is options.methods[best])
        for method, (agreement, words) in zip(options.methods, tried, strict=True)
    ]
    return plans[best], comparison, methods


def _samples(
    model: ModelProto, calibrate: Path | str | None, shapes: Mapping[str, InputShape], ops: CustomOps
) -> Samples:
    copy = ModelProto()
    copy.CopyFrom(model)
    apply_shapes(copy, {name: shape for name, shape in shapes.items() if shape.is_fixed})
    if calibrate is None:
        return made_up(copy, shapes, ops)
    # If the number of rows of an input is free, set it to the least that the program takes: each sample then has that
    # number of rows.
    for value in inputs_of(copy.graph):
        dims = value.type.tensor_type.shape.dim
        if value.name in shapes and dims and not dims[0].HasField("dim_value"):
            rows = min(shape[0] if isinstance(shape[0], int) else shape[0].low for shape in shapes[value.name].choices)
            dims[0].dim_value = rows
    return read_samples(Path(calibrate), copy)


def _bytes_of(path: Path) -> int:
    """The size in bytes of a folder, or of a file and the external data that it refers to."""
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    if path.suffix != ".onnx":
        return path.stat().st_size
    beside = external_data(read_model(path), path).values()
    return path.stat().st_size + sum(end - begin for ranges in beside for begin, end in ranges)


def _tell_nobody(what: str) -> None:
    del what
