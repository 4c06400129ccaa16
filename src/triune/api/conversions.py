"""The conversions: each reads a model, writes another one, and compares both if asked to."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import onnx
from onnx import ModelProto

from triune.api.comparing import Compare, Comparison
from triune.api.rounds import ConversionResult, Tell, in_rounds, notes_of
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.coreai import audit as coreai_audit
from triune.coreai import verify as coreai_verify
from triune.coreai.installed import require_library
from triune.coreai.lowering import LowerOptions as CoreAiOptions
from triune.coreai.lowering import Source, lower_functions
from triune.coreml import verify as coreml_verify
from triune.coreml.audit import Audit as CoreMlAudit
from triune.coreml.lowering import Lowered as CoreMlLowered
from triune.coreml.lowering import LowerOptions as CoreMlOptions
from triune.coreml.lowering import Source as CoreMlSource
from triune.coreml.lowering import lower_functions as lower_coreml_functions
from triune.coreml.package import read_package
from triune.coreml.raising import raise_function
from triune.graph.ane import Report as LayoutReport
from triune.graph.audit import Finding
from triune.graph.blame import Verified
from triune.graph.conversion.shapes import inputs_of, listed
from triune.graph.load import load
from triune.graph.verify import OutputVerdict, check_given

_MOST_BYTES_INLINE = 2**31 - 2**20
"""The largest ONNX file with its weights inside, in bytes: protobuf's limit is 2 GiB. Weights of larger models go into
a second file beside the model."""

_NO_REFEREE = (
    "Apple's interpreter takes no images on this system: what was compared is the program raised to ONNX again"
)

_SLOW_REFEREE = (
    "Apple's interpreter takes long for this program in fp16, so the program was raised to ONNX again and compared in "
    "ONNX Runtime"
)

_T = TypeVar("_T")

Given = Mapping[str, Array] | None
"""Inputs for a comparison, by name; None for no comparison."""

Compared = Comparison | None
"""How to compare the result of a conversion with its source; None for no comparison."""


def onnx_to_coreml(
    sources: Mapping[str, Path],
    output: Path,
    options: CoreMlOptions,
    tell: Tell,
    comparison: Compared,
    audit: CoreMlAudit | None = None,
) -> ConversionResult:
    """Convert ONNX models to a Core ML package with a function for each model.

    `audit` checks the compiler passes that run before the package is saved. It is possible only for one function
    without states.

    Raises:
        InvalidArgumentError: a name in the options is not an input's name, or several functions or states are to be
            audited.
        The errors of `lower_functions` are raised too.
    """
    given: Mapping[str, Array] = comparison.given if comparison is not None else {}
    if audit is not None and (len(sources) > 1 or options.states):
        raise InvalidArgumentError(
            "check (--check) takes a package of one function without states: leave functions (--add) and states "
            "(--state) out for it"
        )

    def convert(wide: frozenset[str]) -> tuple[ConversionResult, Compare]:
        everyone = replace(options, wide=wide)
        models = {name: load(path) for name, path in sources.items()}
        _check_names(models, options, ())
        each = {name: _own_coreml(model, everyone) for name, model in models.items()}
        _require_inputs(models, given)
        for name, model in models.items():
            check_given(model, _own_values(model, given), each[name].constants)
        functions = {name: CoreMlSource(model, each[name]) for name, model in models.items()}
        lowered = lower_coreml_functions(functions, output, report=tell, audit=None if audit is None else audit.begin)
        if audit is not None:
            audit.require_answers()
        renamed = {
            name: other
            for done in lowered.values()
            for name, other in {**done.inputs, **done.outputs, **done.states}.items()
            if name != other
        }
        notes = notes_of({name: done.notes for name, done in lowered.items()})
        layouts = [done.layout for done in lowered.values() if done.layout is not None]
        done = ConversionResult(
            renamed=renamed,
            layout=LayoutReport.of(layouts) if layouts else None,
            notes=notes,
            findings=None if audit is None else audit.findings,
        )
        plain = {name: replace(done, layout=None, notes=()) for name, done in lowered.items()}
        return done, partial(_compare_coreml, sources, plain, everyone, given, samples)

    samples = comparison.samples if comparison is not None else ()
    return in_rounds(convert, output, comparison, tell)


def _compare_coreml(
    sources: Mapping[str, Path],
    lowered: Mapping[str, CoreMlLowered],
    options: CoreMlOptions,
    given: Mapping[str, Array],
    samples: Sequence[Mapping[str, Array]],
) -> Verified:
    def verified(path: Path, name: str) -> Verified:
        model = load(path)
        own = _own_coreml(model, options)
        return coreml_verify.verify_lowered(model, lowered[name], own, _own_values(model, given), samples)

    return _joined({name: verified(path, name) for name, path in sources.items()})


def coreml_to_onnx(source: Path, output: Path, function: str | None, tell: Tell, given: Given) -> ConversionResult:
    """Convert a function of a Core ML package to ONNX."""
    package = read_package(source)
    tell("raising the program")
    model = raise_function(package, function, keep_quantized=True)
    return _save_and_verify(model, output, tell, given, partial(coreml_verify.verify_raised, package, function))


def onnx_to_coreai(
    sources: Mapping[str, Path],
    output: Path,
    options: CoreAiOptions,
    tell: Tell,
    comparison: Compared,
    checked: Given = None,
) -> ConversionResult:
    """Convert ONNX models to a Core AI asset with a function for each model.

    `checked` has inputs for checking whether Apple's compiler changes outputs; with None, this is not checked.
    """
    given: Mapping[str, Array] = comparison.given if comparison is not None else {}

    def convert(wide: frozenset[str]) -> tuple[ConversionResult, Compare]:
        everyone = replace(options, wide=wide)
        models = {name: load(path) for name, path in sources.items()}
        _check_names(models, options, options.images)
        each = {name: _own_coreai(model, everyone) for name, model in models.items()}
        _require_inputs(models, given or checked or {})
        for name, model in models.items():
            check_given(model, _own_values(model, given or checked or {}), each[name].constants)
        functions = {name: Source(model, each[name]) for name, model in models.items()}
        lowered = lower_functions(functions, output, report=tell)
        findings: list[Finding] | None = None
        if checked is not None:
            tell("checking Apple's rewriting")
            findings = []
            for name, model in models.items():
                findings += coreai_audit.audit(functions[name], output, name, _own_values(model, checked))
        done = ConversionResult(layout=lowered.layout, notes=lowered.notes, findings=findings)
        return done, partial(_compare_coreai, sources, output, everyone, given, samples, is_hurried)

    samples = comparison.samples if comparison is not None else ()
    is_hurried = comparison is not None and comparison.is_limited
    done = in_rounds(convert, output, comparison, tell)
    if done.verdicts is None or comparison is None:
        return done
    if not coreai_verify.is_judged_by_apple(options):
        return replace(done, notes=[*done.notes, _NO_REFEREE])
    is_raised = is_hurried and coreai_verify.is_slow(options, output)
    return replace(done, notes=[*done.notes, f"{_SLOW_REFEREE}{comparison.advice.slow}"]) if is_raised else done


def _compare_coreai(
    sources: Mapping[str, Path],
    output: Path,
    options: CoreAiOptions,
    given: Mapping[str, Array],
    samples: Sequence[Mapping[str, Array]],
    is_hurried: bool,
) -> Verified:
    def verified(path: Path, name: str) -> Verified:
        model = load(path)
        own, values = _own_coreai(model, options), _own_values(model, given)
        return coreai_verify.verify_lowered(model, output, name, own, values, samples, is_hurried=is_hurried)

    return _joined({name: verified(path, name) for name, path in sources.items()})


def _joined(found: Mapping[str, Verified]) -> Verified:
    """Join the comparisons of several functions of a program to one result."""
    if len(found) == 1:
        return next(iter(found.values()))
    return Verified(
        [replace(one, name=f"{name}: {one.name}") for name, each in found.items() for one in each.verdicts],
        [value for each in found.values() for value in each.wide],
        [f"{name}: {note}" for name, each in found.items() for note in each.notes],
        [f"{name}: {doubt}" for name, each in found.items() for doubt in each.doubts],
        "; ".join(f"{name}: {each.largest}" for name, each in found.items() if each.largest),
    )


def coreai_to_onnx(source: Path, output: Path, function: str | None, tell: Tell, given: Given) -> ConversionResult:
    """Convert a function of a Core AI asset to ONNX."""
    require_library()
    # Imported only here, since the module imports Apple's library.
    from triune.coreai import raising

    tell("raising the program")
    model = raising.raise_function(source, function, keep_quantized=True)
    name = model.graph.name
    return _save_and_verify(model, output, tell, given, partial(coreai_verify.verify_raised, source, name))


def _save_and_verify(
    model: ModelProto,
    output: Path,
    tell: Tell,
    given: Given,
    verify: Callable[[ModelProto, Mapping[str, Array]], Sequence[OutputVerdict]],
) -> ConversionResult:
    """Save a raised model. Unless `given` is None, `verify` compares it with its source on these inputs."""
    check_given(model, given or {})
    tell("saving")
    _save(model, output)
    if given is None:
        return ConversionResult()
    tell("running both")
    return ConversionResult(verdicts=verify(load(output), given))


def _save(model: ModelProto, output: Path) -> None:
    """Save a model. Large weights are written to a separate file in the same folder."""
    # The type hints of onnx are incomplete.
    library: Any = onnx
    is_large = model.ByteSize() > _MOST_BYTES_INLINE
    beside = f"{output.name}.data" if is_large else None
    library.save(model, str(output), save_as_external_data=is_large, location=beside)


def _check_names(
    models: Mapping[str, ModelProto], options: CoreMlOptions | CoreAiOptions, images: Collection[str]
) -> None:
    """Raise InvalidArgumentError for a name in the options that is not an input of any model."""
    names = dict.fromkeys(value.name for model in models.values() for value in inputs_of(model.graph))
    for name in (*options.shapes, *options.constants, *options.states):
        if name not in names:
            raise InvalidArgumentError(f"there is no input '{name}'; the inputs are {listed(names)}")
    names |= dict.fromkeys(value.name for model in models.values() for value in model.graph.output)
    for name in images:
        if name not in names:
            raise InvalidArgumentError(f"there is no '{name}' to be an image; inputs and outputs are {listed(names)}")


def _require_inputs(models: Mapping[str, ModelProto], given: Mapping[str, Array]) -> None:
    """Raise InvalidArgumentError for a given array that is an input of no model."""
    names = dict.fromkeys(value.name for model in models.values() for value in inputs_of(model.graph))
    for name in given:
        if name not in names:
            raise InvalidArgumentError(f"there is no input '{name}' to give; the inputs are {listed(names)}")


def _own_coreml(model: ModelProto, options: CoreMlOptions) -> CoreMlOptions:
    """Select the options that concern the inputs of this model."""
    return replace(
        options,
        shapes=_own_values(model, options.shapes),
        constants=_own_values(model, options.constants),
        states=_own_values(model, options.states),
    )


def _own_coreai(model: ModelProto, options: CoreAiOptions) -> CoreAiOptions:
    """Select the options that concern the inputs and outputs of this model."""
    return replace(
        options,
        shapes=_own_values(model, options.shapes),
        constants=_own_values(model, options.constants),
        states=_own_values(model, options.states),
        images=_own_values(model, options.images) | _own_outputs(model, options.images),
    )


def _own_outputs(model: ModelProto, values: Mapping[str, _T]) -> dict[str, _T]:
    return {value.name: values[value.name] for value in model.graph.output if value.name in values}


def _own_values(model: ModelProto, values: Mapping[str, _T]) -> dict[str, _T]:
    names = {value.name for value in inputs_of(model.graph)}
    return {name: value for name, value in values.items() if name in names}
