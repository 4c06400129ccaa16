"""`triune.compress` for a decoder's checkpoint: it stores the matrices in fewer bits, and compares the result with the
source on text.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triune.api.staging import publish, require_replaceable, staged
from triune.api.timing import units_here
from triune.backends.libraries import require_libraries
from triune.compression.accuracy import TextAccuracy
from triune.compression.found import Kept
from triune.compression.ladder import Step, fewest, rungs_after, steps_of
from triune.compression.options import Options, Per, WeightForm
from triune.compression.report import Layer, Report, Timed
from triune.compression.report import Method as TriedMethod
from triune.core.errors import InvalidArgumentError, UnsupportedError

if TYPE_CHECKING:
    from triune.engine.compressing.compare import TextComparison
    from triune.engine.compressing.matrices import Made, Matrices
    from triune.engine.compressing.stored import Stored

Tell: TypeAlias = Callable[[str], None]

_FILES: Final = (".onnx", ".mlpackage", ".mlmodel", ".mlmodelc", ".aimodel", ".gguf", ".safetensors")
"""Suffixes of model files. A target with one of them is refused, since it must name a directory. Other suffixes may be
part of a model's name: "Qwen2.5-0.5B"."""

_INTEGERS: Final = (WeightForm.INT4, WeightForm.INT8)
_FORMS: Final = (*_INTEGERS, WeightForm.FP16, WeightForm.BF16)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A trial of compressed matrices: the matrices and their forms by name, those in a more precise form than was asked
    for, and how far the answers agree with the source's.
    """

    matrices: "dict[str, Stored]"
    forms: dict[str, WeightForm]
    returned: dict[str, WeightForm]
    accuracy: TextAccuracy
    holds: bool


def compress_text(
    source: Path,
    target: Path,
    options: Options,
    *,
    calibrate: Path | None,
    keep_accuracy: float | None,
    least: float,
    measure: bool,
    force: bool,
    tell: Tell,
) -> Report:
    """Compress a decoder's checkpoint, compare the result with its source on text, and write it if the answers agree.

    Args:
        source: a GGUF file or a directory in Hugging Face's form, of LLaMA's family.
        target: the directory to write, in MLX's layout; an existing one is replaced.
        options: the form: INT4, INT8, FP16 or BF16, with group size, zero points and method.
        calibrate: the path of a text; None means a text that comes with Python.
        keep_accuracy: the least agreement (`TextAccuracy.agreement`). Matrices return to a higher precision until it is
            reached; None for no such limit.
        least: the agreement below which nothing is written without `force`.
        measure: whether to measure the speed and the joules of source and result on the units of this machine.
        force: whether to write the result whatever its agreement is.
        tell: receives progress messages.

    Raises:
        InvalidArgumentError: an option does not apply, the text is not valid or too short, or the target is not a
            directory, or has other things in it than a model.
        UnsupportedError: the architecture is not of LLaMA's family, or the result's agreement is too small.
    """
    _require(options, source, target)
    require_libraries()
    from triune.engine.compressing.compare import TextComparison
    from triune.engine.compressing.graph import TextGraph
    from triune.engine.compressing.matrices import Form, Matrices
    from triune.engine.compressing.text import WINDOW, read_texts
    from triune.engine.compressing.write import write_mlx
    from triune.engine.weights import open_checkpoint
    from triune.engine.weights.config import LlamaConfig

    tell("reading the checkpoint")
    checkpoint = open_checkpoint(source)
    config = checkpoint.config
    if not isinstance(config, LlamaConfig):
        raise UnsupportedError(
            f"'{source.name}' is of {type(config).__name__.removesuffix('Config')}; weights of LLaMA's family are "
            "compressed here. Bring another model to ONNX first (triune convert), and compress that"
        )
    tokenizer = checkpoint.tokenizer()
    context = config.max_position_embeddings
    texts = read_texts(calibrate, lambda text: tokenizer.encode(text, add_special_tokens=False), context)
    graph = TextGraph(checkpoint, min(WINDOW, context))
    tell("running the source")
    comparison = TextComparison(graph, texts.comparison)
    if not comparison.is_finite or not all(np.isfinite(graph.weight(name)).all() for name in graph.shapes):
        raise InvalidArgumentError(f"'{source.name}' has, or computes, NaN or infinities: it cannot be compared with")
    form = Form(options.weights, options.group, options.is_symmetric)
    matrices = Matrices(graph, config, form)
    methods = options.methods
    tell(f"rounding by {' and '.join(each.value for each in methods)}")
    tried: list[TriedMethod] = []
    best: tuple[Made, TextAccuracy] | None = None
    for made in matrices.make(methods, texts.calibration):
        tell(f"comparing what {made.method.value} gives")
        matrices.put(made, made.matrices)
        accuracy = comparison.accuracy()
        tried.append(TriedMethod(made.method.value, accuracy.agreement, _words(accuracy), is_kept=False))
        if best is None or accuracy.agreement > best[1].agreement:
            best = made, accuracy
    assert best is not None
    made, accuracy = best
    forms = {name: form.of(name) for name in matrices.names}
    found = _Attempt(made.matrices, forms, {}, accuracy, accuracy.agreement >= least)
    if keep_accuracy is not None and not found.holds:
        found = _searched(matrices, made, comparison, found, keep_accuracy, tell)
    _require_agreement(found, least, is_searched=keep_accuracy is not None, force=force)
    with ExitStack() as stack:
        staging = stack.enter_context(staged(target))
        tell("writing")
        offset = config.norm_weight_offset
        vectors = {name: each - offset for name, each in made.vectors.items()}
        write_mlx(source, checkpoint, found.matrices, vectors, staging)
        tell("comparing what was written")
        written = open_checkpoint(staging)

        def read(name: str) -> NDArray[np.float32]:
            plus = offset if name.endswith("norm.weight") else 0
            return (written.tensor(name).dequantize() + plus).astype(np.float32, copy=False)

        # Read all weights from the written files, also the norms, which the quantization method may have changed.
        graph.changed = {name: partial(read, name) for name in graph.shapes}
        accuracy = comparison.accuracy()
        found = _Attempt(found.matrices, found.forms, found.returned, accuracy, accuracy.agreement >= least)
        _require_agreement(found, least, is_searched=keep_accuracy is not None, force=force)
        before: list[Timed] = []
        after: list[Timed] = []
        if measure:
            # The engine is imported only if it measures.
            from triune.api.compressing.speeds import decoder_speeds, prompt_tokens

            prompt = tokenizer.decode(texts.comparison[0][: prompt_tokens(context)])
            for each in units_here():
                tell(f"measuring on {each.value}")
                one, other = decoder_speeds((source, staging), each, prompt, context)
                before.append(one)
                after.append(other)
        sizes = _bytes_of(source), _bytes_of(staging)
        publish(staging, target)
    tried = [TriedMethod(each.name, each.agreement, each.note, each.name == made.method.value) for each in tried]
    notes = _notes(options, made, found, sizes)
    kept = [
        Kept(name, math.prod(checkpoint.shape(name)), "it is a vector, of a norm or a bias")
        for name in checkpoint.names
        if name not in forms
    ]
    described = replace(options, method=made.method).described
    return Report(
        source.name, target.name, described, *sizes, texts.origin, texts.is_built_in,
        [], accuracy.agreement, least, _layers(matrices, made, found), kept, before, after, notes,
        methods=tried if len(tried) > 1 else (), text=accuracy,
    )  # fmt: skip


def _searched(
    matrices: "Matrices", made: "Made", comparison: "TextComparison", first: _Attempt, least: float, tell: Tell
) -> _Attempt:
    """Find the fewest matrices that must be in a more precise form for the agreement to reach `least`."""
    rungs: dict[str, list[WeightForm]] = {}
    noise: dict[str, list[float]] = {}
    for name in matrices.names:
        rungs[name] = _rungs(first.forms[name], matrices.half(made, name))
        own = made.noise.get(name, 0.0)
        base = matrices.weights_db(made, name, first.matrices[name])
        noise[name] = [own]
        for form in rungs[name][1:]:
            other = matrices.weights_db(made, name, matrices.in_form(made, name, form))
            # Assume that a matrix's rounding errors have the same direction in another form, and differ in size only.
            # Then its error in the output changes in the ratio of the two errors of the weights, which are given in dB.
            noise[name].append(own * 10 ** ((base - other) / 10) if math.isfinite(other) else 0.0)
    steps = steps_of(noise)

    def attempt(count: int) -> _Attempt:
        tell(f"{count} of {len(steps)} steps to a higher precision")
        return _tried(matrices, made, comparison, first, rungs, steps[:count], least)

    return fewest(len(steps), attempt) if steps else first


def _tried(
    matrices: "Matrices",
    made: "Made",
    comparison: "TextComparison",
    first: _Attempt,
    rungs: dict[str, list[WeightForm]],
    steps: Sequence[Step],
    least: float,
) -> _Attempt:
    returned = {name: rungs[name][rung] for name, rung in rungs_after(steps).items()}
    stored = {**first.matrices, **{name: matrices.in_form(made, name, form) for name, form in returned.items()}}
    matrices.put(made, stored)
    accuracy = comparison.accuracy()
    return _Attempt(stored, first.forms | returned, returned, accuracy, accuracy.agreement >= least)


def _rungs(form: WeightForm, half: WeightForm) -> list[WeightForm]:
    """The form `form`, followed by the more precise forms to which a matrix may return, the least precise first."""
    ladder = [WeightForm.INT4, WeightForm.INT8, half, WeightForm.FP32]
    return ladder[ladder.index(form) :] if form in ladder else [form, WeightForm.FP32]


def _require(options: Options, source: Path, target: Path) -> None:
    if target.resolve() == source.resolve():
        raise InvalidArgumentError(f"'{target}' would replace the source: name another directory")
    if target.suffix in _FILES:
        raise InvalidArgumentError(
            f"'{target.name}' is to get a decoder's weights, which are written as a directory in MLX's layout: name "
            f"one without {target.suffix}"
        )
    require_replaceable(target)
    if options.weights not in _FORMS:
        names = ", ".join(each.value for each in _FORMS)
        raise InvalidArgumentError(
            f"a decoder's weights are not stored as {options.weights.value} here: choose one of {names}"
        )
    if options.activations is not None or options.has_zeros or options.per is Per.TENSOR:
        raise InvalidArgumentError(
            "a decoder's weights have a scale for each channel or group, no zeros, and activations as floats: leave "
            "--activations, --sparsity, --n-m and --per out"
        )


def _require_agreement(found: _Attempt, least: float, *, is_searched: bool, force: bool) -> None:
    if force or found.accuracy.agreement >= least:
        return
    words = _words(found.accuracy) if found.accuracy.is_finite else "the logits have NaN or infinities"
    if is_searched:
        raise UnsupportedError(
            f"an agreement of {least:.2%} cannot be kept with {len(found.returned)} of {len(found.forms)} matrices "
            f"in higher precision ({words}): ask for less, for smaller groups or more bits, or write it with --force"
        )
    raise UnsupportedError(
        f"the predictions agree by {found.accuracy.agreement:.2%} ({words}), where {least:.0%} is the least: nothing "
        "is written. Take smaller groups (--group 32), more bits, --method best, --keep-accuracy, or write it as it is "
        "with --force"
    )


def _words(accuracy: TextAccuracy) -> str:
    return (
        f"divergence {accuracy.divergence:.3g}, perplexity {accuracy.perplexity:.4g}, "
        f"{accuracy.perplexity_before:.4g} before; the same most probable token at {accuracy.top1:.2%} of places"
    )


def _layers(matrices: "Matrices", made: "Made", found: _Attempt) -> list[Layer]:
    layers: list[Layer] = []
    for name in matrices.names:
        notes = [matrices.notes.get(name, "")]
        if name in found.returned:
            notes.insert(0, f"went back to {found.returned[name].value}: it adds much noise")
        if name in made.inputs:
            notes.append("its inputs are scaled (AWQ)")
        noise = made.noise.get(name)
        layers.append(
            Layer(
                name,
                "Gather" if noise is None else "MatMul",
                found.forms[name].value,
                matrices.weights_db(made, name, found.matrices[name]),
                None if noise is None else (-10 * math.log10(noise) if noise > 0 else math.inf),
                "; ".join(filter(None, notes)),
            )
        )
    return layers


def _notes(options: Options, made: "Made", found: _Attempt, sizes: tuple[int, int]) -> list[str]:
    notes: list[str] = []
    if found.returned:
        counts: dict[str, int] = {}
        for form in found.returned.values():
            counts[form.value] = counts.get(form.value, 0) + 1
        notes.append(
            "went back to a higher precision: " + ", ".join(f"{count} to {form}" for form, count in counts.items())
        )
    if options.weights in _INTEGERS and options.group is None:
        notes.append("a scale for each channel: the engine reads it; mlx-lm takes groups of 32, 64 or 128 (--group)")
    if made.scaled:
        used = [each for each in made.scaled.values() if each.exponent]
        notes.append(f"AWQ scales the inputs of {len(used)} of {len(made.scaled)} places where it may: it pays there")
    if sizes[1] >= sizes[0]:
        notes.append("the result is no smaller than its source, which has packed weights already")
    return notes


def _bytes_of(path: Path) -> int:
    """The size of a file, or of the weight files in a directory, in bytes."""
    if path.is_dir():
        return sum(each.stat().st_size for each in path.glob("*.safetensors"))
    return path.stat().st_size
