"""`triune.convert`: converts a model between ONNX, Core ML and Core AI, or a checkpoint to one of them, chosen by the
file suffixes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from triune.api.checkpoints import checkpoint_to_onnx, graph_of, is_checkpoint, left_out_of
from triune.api.comparing import Comparison
from triune.api.conversions import coreai_to_onnx, coreml_to_onnx, onnx_to_coreai, onnx_to_coreml
from triune.api.custom import BodyCheck, with_custom_ops
from triune.api.frameworks import exported, framework_of
from triune.api.frameworks.frameworks import SUFFIXES
from triune.api.ladders import CacheForm, LadderFiles, ladder_of, ladder_to_program
from triune.api.model_folders import model_in
from triune.api.rounds import ConversionResult
from triune.api.shapes import Shape, input_shape
from triune.api.staging import publish, staged
from triune.core.datatypes import Array
from triune.core.disk import writing
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreai.lowering import MAIN
from triune.coreai.lowering import LowerOptions as CoreAiOptions
from triune.coreai.lowering.image_options import parse_images
from triune.coreml.audit import Audit
from triune.coreml.lowering import LowerOptions as CoreMlOptions
from triune.coreml.lowering import Target
from triune.graph.ane import Report
from triune.graph.audit import Finding
from triune.graph.conversion.options import Layout, Precision
from triune.graph.custom import CustomOpsGiven, read_custom_ops
from triune.graph.load import load
from triune.graph.optimizing.save import save
from triune.graph.verify import OutputVerdict, Verdict

PrecisionName: TypeAlias = Literal["fp32", "fp16", "mixed"]
LayoutName: TypeAlias = Literal["source", "ane"]
DEFAULT_SYSTEM = "iOS18"

_CORE_ML = (".mlpackage", ".mlmodel", ".mlmodelc")


@dataclass(frozen=True, slots=True)
class Conversion:
    """The result of a conversion.

    Attributes:
        path: the file that was written; None if the comparison found it wrong, and nothing was written.
        verdict: RIGHT, WRONG, or UNKNOWN if the outputs allow no comparison; None if nothing was compared.
        not_compared: why the comparison that is the default for fp16 was given up; "" if it was not.
        outputs: the verdict on each output, with its error and tolerance.
        findings: the outputs that a compiler pass changed; None if the passes were not checked.
        notes: what differs from the source, and why.
        renamed: for each name of the source that had to change, the new name.
        layout: the report of the Neural Engine's layout; None if it was not requested.
    """

    path: Path | None
    verdict: Verdict | None = None
    not_compared: str = ""
    outputs: Sequence[OutputVerdict] = ()
    findings: Sequence[Finding] | None = None
    notes: Sequence[str] = ()
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    layout: Report | None = None


def convert(
    source: Any,
    target: Path | str,
    *,
    precision: PrecisionName | Precision = Precision.FP32,
    keep_fp32: Iterable[str] = (),
    shapes: Mapping[str, Shape] | None = None,
    constants: Mapping[str, ArrayLike] | None = None,
    layout: LayoutName | Layout = Layout.SOURCE,
    system: str = DEFAULT_SYSTEM,
    function: str | None = None,
    functions: Mapping[str, Path | str] | None = None,
    states: Mapping[str, str] | None = None,
    images: Mapping[str, str] | None = None,
    pack_weights: bool = False,
    verify: bool | None = None,
    check: bool = False,
    inputs: Mapping[str, Array] | None = None,
    custom_ops: CustomOpsGiven = (),
    contexts: Sequence[int] = (),
    cache: CacheForm | None = None,
    report: Callable[[str], None] | None = None,
) -> Conversion:
    """Convert ONNX to Core ML or Core AI, or either of them to ONNX; or a transformer's checkpoint, or a model of
    another framework, to any of the three.

    A decoder's checkpoint becomes a program with a cache: for each size C of it the functions `prefill_C` and
    `decode_C`; or, if `function` is "decoder" or `shapes` are given, the graph that reads whole texts.

    Args:
        source: a .onnx, .mlpackage, .mlmodelc or .aimodel; or a .gguf, or a directory in Hugging Face's form; or a
            model's folder in a repository, whose newest version is converted. From other frameworks: a .pt2,
            .keras, .tflite, .skops, .ubj, .json (XGBoost) or .txt (LightGBM), a SavedModel's folder; or an object: a
            torch.nn.Module or ExportedProgram, a keras.Model, an estimator of scikit-learn, XGBoost or LightGBM, a
            function of JAX.
        target: a .mlpackage, .aimodel or .onnx; an existing one is replaced.
        precision: the floating-point format that the program computes in.
        keep_fp32: names of nodes or operators that precision "mixed" keeps in fp32.
        shapes: the shapes by input name, for ONNX models with free dimensions.
        constants: values for inputs that become constants.
        layout: "ane" rewrites transformers to the layout that is fast on the Neural Engine.
        system: the oldest system that must run a .mlpackage: "iOS15" to "iOS18".
        function: the function of the source to convert, such as "encoder" of a checkpoint with encoder and decoder; for
            a new .mlpackage or .aimodel from .onnx, the name of its function.
        functions: further functions of the target by name, each an ONNX file; equal weights are shared.
        states: inputs that become states of the target, each with the output that is its next value. The states of a
            .mlpackage are fp16.
        images: inputs and outputs of a .aimodel that become images: "rgb24", "rgb24,scale=0.5,bias=1|2|3".
        pack_weights: compress the weights of a .aimodel without loss, by look-up tables and bitmasks.
        verify: compare source and target on the same inputs; a wrong target is not written. By default a target that
            computes in fp16 is compared, for a minute at most, as are exports of scikit-learn, XGBoost and LightGBM
            with their models; a wrong target is an error.
        check: compare the program's outputs before and after each compiler pass; a wrong target is not written.
        inputs: inputs for `verify` and `check`, by name; missing ones are generated. A torch.nn.Module and a function
            of JAX need an example of each of their parameters.
        custom_ops: custom operators (`custom_op`), or Python files that define them: their bodies are put into the
            model first. `verify` compares them with their numpy functions, too. With them .onnx is converted to .onnx,
            as a model that contains the bodies.
        contexts: the sizes in tokens of the caches of a decoder's program; 256 and 1024 if there are none.
        cache: whether a decoder's program keeps its cache in states ("state", the default), or takes and gives it as
            inputs and outputs ("argument").
        report: called with a message at each step.

    Raises:
        NotFoundError: there is no such source, or no such function in it.
        InvalidArgumentError: the source is broken, an option is wrong or does not apply to these formats, or the target
            cannot be written.
        UnsupportedError: the model cannot be converted (the message lists every node with the reason), or a library is
            missing; or `verify` is None, and the target would answer wrongly in fp16.
    """
    framework = framework_of(source)
    target = Path(target)
    if framework is None:
        source = model_in(Path(source))
    tell = report or _tell_nobody
    precision = _chosen(Precision, precision, "precision")
    is_default = verify is None and precision is not Precision.FP32 and target.suffix != ".onnx"
    is_asked, verify_export = verify is True, True if is_default else verify
    verify = is_default if verify is None else verify
    if inputs and not (verify or check or framework is not None):
        raise InvalidArgumentError("inputs (--input) are what verify and check compare with: ask for one of them, too")
    if check and target.suffix == ".onnx":
        raise InvalidArgumentError("check is about Apple's compilers: convert to .mlpackage or .aimodel")
    if target.suffix == ".onnx" and (functions or states):
        raise InvalidArgumentError("functions (--add) and states (--state) are for .mlpackage and .aimodel")
    if target.suffix != ".aimodel" and (images or pack_weights):
        raise InvalidArgumentError("images (--image) and packed weights (--pack-weights) are for .aimodel")
    if target.suffix == ".aimodel" and system != DEFAULT_SYSTEM:
        raise InvalidArgumentError(
            "the oldest system (--target) is for .mlpackage; an .aimodel runs from macOS and iOS 27 on"
        )
    shared: dict[str, Any] = {
        "precision": precision,
        "keep_fp32": frozenset(keep_fp32),
        "shapes": {name: input_shape(name, shape) for name, shape in (shapes or {}).items()},
        "constants": {name: np.asarray(value) for name, value in (constants or {}).items()},
        "layout": _chosen(Layout, layout, "layout"),
    }
    given = dict(inputs or {})
    ops = read_custom_ops(custom_ops)
    bodies = BodyCheck({**shared["constants"], **given}, shared["shapes"], not is_default) if verify else None
    compared = given if verify else None
    comparison = Comparison(given, is_limited=is_default) if verify else None
    with writing(target), ExitStack() as stack:
        path = stack.enter_context(staged(target))
        notes: tuple[str, ...] = ()
        if framework is not None:
            made = stack.enter_context(
                exported(framework, source, given, shared["shapes"], tell, verify=verify_export, is_asked=is_asked)
            )
            source, notes = made.path, made.notes
        form = "checkpoint" if is_checkpoint(source) else source.suffix
        checkpoint = source if form == "checkpoint" else None
        ladder: LadderFiles | None = None
        if form == "checkpoint" and target.suffix in (".mlpackage", ".aimodel"):
            if function is None and not shapes:
                ladder = stack.enter_context(ladder_of(source, contexts, tell))
            if ladder is None:
                source, function = stack.enter_context(graph_of(source, function, tell)), None
                form = ".onnx"
        if ladder is None and (contexts or cache is not None):
            raise InvalidArgumentError(
                "sizes of caches (--context) and their form (--cache) are for converting a checkpoint of LLaMA's "
                "family or GPT-2 to .mlpackage or .aimodel, without --function and --shape"
            )
        where = f"a conversion to {target.suffix}"
        resolved = stack.enter_context(with_custom_ops(source, ops, where, bodies, tell))
        source = resolved.path
        functions = {
            name: stack.enter_context(with_custom_ops(Path(each), ops, where, bodies, tell)).path
            for name, each in (functions or {}).items()
        }
        match form, target.suffix:
            case "checkpoint", (".mlpackage" | ".aimodel") if ladder is not None:
                if functions or states or images or check or given or ops.ops:
                    raise InvalidArgumentError(
                        "a decoder's program has functions and states of its own: leave out functions (--add), states "
                        "(--state), images (--image), custom operators, check (--check) and inputs (--input), or "
                        "convert the graph that reads whole texts (--function decoder)"
                    )
                chosen = (
                    CoreMlOptions(target=Target.parse(system), **shared)
                    if target.suffix == ".mlpackage"
                    else CoreAiOptions(packs_weights=pack_weights, **shared)
                )
                done = ladder_to_program(ladder, path, chosen, cache or "state", tell, comparison)
            case "checkpoint", ".onnx":
                _refuse_options_of_onnx(shared)
                done = checkpoint_to_onnx(source, path, function, tell, compared)
            case ".onnx", ".onnx" if ops.ops or framework is not None:
                _refuse_options_of_onnx(shared if framework is None else {**shared, "shapes": {}})
                save(load(source), path)
                done = ConversionResult()
            case ".onnx", ".mlpackage":
                sources = _sources(source, MAIN if function is None else function, functions or {})
                options = CoreMlOptions(target=Target.parse(system), states=states or {}, **shared)
                done = onnx_to_coreml(sources, path, options, tell, comparison, Audit(given) if check else None)
            case ".onnx", ".aimodel":
                sources = _sources(source, MAIN if function is None else function, functions or {})
                options = CoreAiOptions(
                    states=states or {}, images=parse_images(images or {}), packs_weights=pack_weights, **shared
                )
                done = onnx_to_coreai(sources, path, options, tell, comparison, given if check else None)
            case ((".mlpackage" | ".mlmodel" | ".mlmodelc" | ".aimodel"), ".onnx"):
                _refuse_options_of_onnx(shared)
                raised = coreml_to_onnx if source.suffix in _CORE_ML else coreai_to_onnx
                done = raised(source, path, function, tell, compared)
            case _:
                raise InvalidArgumentError(
                    f"no conversion from '{source.name}' to '{target.name}'; one is .onnx, the other .mlpackage or "
                    ".aimodel, or the source is a .gguf, a directory with config.json, or a model of another framework "
                    f"({SUFFIXES}, a SavedModel's folder)"
                )
        if checkpoint is not None:
            notes = left_out_of(checkpoint)
        done = replace(done, notes=[*notes, *resolved.notes, *done.notes])
        if is_default:
            done = _judged(target, done)
        is_right = done.verdict is not Verdict.WRONG and not done.findings
        if is_right:
            publish(path, target)
    return _conversion(target if is_right else None, done)


def _refuse_options_of_onnx(shared: Mapping[str, Any]) -> None:
    if shared["shapes"] or shared["constants"] or shared["keep_fp32"] or shared["layout"] is not Layout.SOURCE:
        raise InvalidArgumentError(
            "shapes (--shape), constants (--constant), nodes kept in fp32 (--keep-fp32) and a layout (--layout) are "
            "for converting to .mlpackage or .aimodel"
        )


def _conversion(path: Path | None, done: ConversionResult) -> Conversion:
    return Conversion(
        path,
        done.verdict,
        done.not_compared,
        done.verdicts or (),
        done.findings,
        done.notes,
        done.renamed,
        done.layout,
    )


def _judged(target: Path, done: ConversionResult) -> ConversionResult:
    """Judge a comparison that the user did not ask for: a few integers, or a number of elements, that differ because of
    fp16 become a note.

    Raises:
        UnsupportedError: an output is wrong.
    """
    notes: list[str] = []
    for each in done.verdicts or ():
        if each.verdict is not Verdict.WRONG:
            continue
        if not each.is_in_few_integers and each.computed is None:
            raise UnsupportedError(
                f"'{target.name}' would answer wrongly in fp16, and is not written: {each.described}. Keep the nodes "
                "that compute it in fp32 (--precision mixed --keep-fp32 NODE), or convert in fp32; --no-verify writes "
                "it as it is, and --verify shows all outputs"
            )
        notes.append(f"fp16 decides otherwise where numbers are nearly equal: {each.described}")
    if not notes:
        return done
    verdicts = [_excused(each) for each in done.verdicts or ()]
    return replace(done, verdicts=verdicts, notes=[*done.notes, *notes])


def _excused(each: OutputVerdict) -> OutputVerdict:
    if each.is_in_few_integers:
        return replace(each, allowed=each.error)
    return replace(each, is_excused=each.computed is not None)


def _tell_nobody(what: str) -> None:
    del what


def _chosen(kind: Any, given: Any, what: str) -> Any:
    try:
        return kind(given)
    except ValueError:
        known = ", ".join(f"'{each.value}'" for each in kind)
        raise InvalidArgumentError(f"there is no {what} {given!r}; there are {known}") from None


def _sources(source: Path, first: str, others: Mapping[str, Path | str]) -> dict[str, Path]:
    if first in others:
        raise InvalidArgumentError(f"function '{first}' is named twice; give the first another name (--function)")
    sources = {first: source, **{name: Path(path) for name, path in others.items()}}
    if wrong := [name for name in sources if not name or not name.isprintable()]:
        raise InvalidArgumentError(
            f"a function is to have the name {wrong[0]!r} (--function, --add): a name has at least one character, and "
            "none that is a line break or another control character"
        )
    return sources
