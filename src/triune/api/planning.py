"""`triune.plan`: which unit should compute which part of a model, in what time and with how many joules. All
figures are predictions.
"""

import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from onnx import ModelProto

from triune.api.checkpoints import graph_of, is_checkpoint
from triune.api.custom import with_custom_ops
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Unit
from triune.graph.conversion.constants import bind_constants, typed_constants
from triune.graph.conversion.prepare import translated_failures
from triune.graph.conversion.shapes import InputShape, apply_shapes, inputs_of, parse_shapes
from triune.graph.custom import CustomOps, CustomOpsGiven, read_custom_ops
from triune.graph.custom.foreign import require_defined
from triune.graph.load import load
from triune.graph.normalize import normalize
from triune.graph.values import Values
from triune.graph.weight_files import WeightFile
from triune.hardware.chips import chip as chip_of
from triune.hardware.facts import UnitFacts
from triune.hardware.measured import machine_key
from triune.planning.candidates import Request
from triune.planning.constants import constants as fitted
from triune.planning.graph_ops import KEPT, ops_of
from triune.planning.machine import target_here
from triune.planning.measured import MeasuredTime, load_times, model_key, of_shapes
from triune.planning.op import Op, group_of
from triune.planning.plan import Goal, Plan
from triune.planning.planner import plan as plan_request
from triune.planning.units import Target, target_of
from triune.runtimes.described import known_units, times_folder

GoalName: TypeAlias = Literal["latency", "throughput", "energy"]

DEFAULT_TOKENS = 512
"""The default number of tokens of a prompt, and of the context of a decoding step."""


_WHISPER_FRAMES = 3000
"""The frames of 30 seconds of sound, which Whisper's encoder reads at once."""


def plan(
    source: Path | str,
    *,
    chip: str | None = None,
    goal: GoalName | Goal = Goal.LATENCY,
    units: Sequence[str | Unit] = (),
    shapes: Mapping[str, str] | None = None,
    constants: Mapping[str, ArrayLike] | None = None,
    tokens: int = DEFAULT_TOKENS,
    latency_limit_ms: float | None = None,
    function: str | None = None,
    custom_ops: CustomOpsGiven = (),
    report: Callable[[str], None] | None = None,
) -> list[Plan]:
    """Plan a model for a chip. All times and energies are predictions; each plan has their error.

    Args:
        source: a .onnx, .mlpackage, .mlmodelc or .aimodel; or a transformer's checkpoint: a .gguf, or a directory.
        chip: "m2-pro", "M4 Max"; None for this machine, with the peaks that `triune units --measure` measured on it.
        goal: "latency", "throughput" or "energy".
        units: the units that the plan may use; empty for all.
        shapes: the shapes of inputs with free dimensions, such as {"input_ids": "1,128"}; a free first dimension
            is 1.
        constants: values for inputs that become constants, such as those on which branches depend.
        tokens: for a checkpoint, the number of tokens of the prompt, and of the context of a step that generates.
        latency_limit_ms: for the goal "energy", the longest time of a call.
        function: the function of a package, asset or checkpoint that has several.
        custom_ops: custom operators (`custom_op`) with a body, or files that define them.
        report: called with a message at each step.

    Returns:
        the plan. For a checkpoint that generates text there are two: for the prompt, and for a step that generates.

    Raises:
        NotFoundError: there is no such file, function or chip.
        InvalidArgumentError: an option is wrong, or a shape is not known.
        UnsupportedError: no unit supports an operation, no plan is within the limit, this machine was not measured, or
            a custom operator has no body.
    """
    try:
        wanted = Goal(goal)
    except ValueError:
        raise InvalidArgumentError(
            f"there is no goal {goal!r}; there are {', '.join(each.value for each in Goal)}"
        ) from None
    bound = _Bound(shapes or {}, {name: np.asarray(value) for name, value in (constants or {}).items()})
    requests, targets = _requests(
        Path(source), chip, units, bound, tokens, function, read_custom_ops(custom_ops), report or _tell_nobody
    )
    return [
        plan_request(replace(each, goal=wanted, latency_limit_ms=latency_limit_ms), on, fitted())
        for each, on in zip(requests, targets, strict=True)
    ]


def compare(
    source: Path | str,
    *,
    chip: str | None = None,
    units: Sequence[str | Unit] = (),
    shapes: Mapping[str, str] | None = None,
    constants: Mapping[str, ArrayLike] | None = None,
    tokens: int = DEFAULT_TOKENS,
    latency_limit_ms: float | None = None,
    function: str | None = None,
    custom_ops: CustomOpsGiven = (),
    report: Callable[[str], None] | None = None,
) -> list[list[Plan]]:
    """Plan a model for each goal. The arguments are those of `plan`; the latency limit applies to the plan of least
    energy.

    Returns:
        for each plan that `plan` would return, the plans for all goals. A goal for which there is no plan is left out,
            and a note of the first plan says why.

    Raises:
        TriuneError: an error of `plan`, if there is no plan for the goal "latency".
    """
    bound = _Bound(shapes or {}, {name: np.asarray(value) for name, value in (constants or {}).items()})
    requests, targets = _requests(
        Path(source), chip, units, bound, tokens, function, read_custom_ops(custom_ops), report or _tell_nobody
    )
    compared: list[list[Plan]] = []
    for request, target in zip(requests, targets, strict=True):
        plans = [plan_request(request, target, fitted())]
        for goal in (Goal.THROUGHPUT, Goal.ENERGY):
            limit = latency_limit_ms if goal is Goal.ENERGY else None
            try:
                plans.append(plan_request(replace(request, goal=goal, latency_limit_ms=limit), target, fitted()))
            except UnsupportedError as error:
                plans[0] = replace(plans[0], notes=(*plans[0].notes, f"for {goal.value}: {error}"))
        compared.append(plans)
    return compared


def _requests(
    path: Path,
    chip: str | None,
    units: Sequence[str | Unit],
    bound: "_Bound",
    tokens: int,
    function: str | None,
    custom_ops: CustomOps,
    tell: Callable[[str], None],
) -> tuple[list[Request], list[Target]]:
    """The requests to the planner for the goal "latency", one for each part of the source (prompt and generating step),
    and the target of each with its notes. Raises the errors of `plan`.
    """
    here = known_units() if chip is None else None
    target = target_of(chip_of(chip), fitted()) if chip is not None else target_here(here or (), fitted())
    if tokens < 1:
        raise InvalidArgumentError(f"{tokens} tokens cannot be planned for; give 1 or more")
    named = tuple(each if isinstance(each, Unit) else _unit(each) for each in units)
    requests: list[Request] = []
    targets: list[Target] = []
    times, reason = ((), "") if here is None or is_checkpoint(path) else times_here(path, here)
    for title, ops, group, inputs in _steps(path, bound, tokens, function, custom_ops, tell):
        tell("planning")
        measured, note = of_shapes(times, inputs)
        requests.append(Request(title, ops, group, units=named, measured=measured))
        targets.append(replace(target, notes=(*target.notes, *filter(None, (reason, note)))))
    return requests, targets


def times_here(path: Path, units: Sequence[UnitFacts]) -> tuple[Sequence[MeasuredTime], str]:
    """The times of a model that were measured on this machine (see `load_times`), and why they cannot be read,
    or "".
    """
    return load_times(times_folder(), model_key(path, machine_key(units)))


def _unit(name: str) -> Unit:
    try:
        return Unit(name)
    except ValueError:
        raise InvalidArgumentError(f"there is no unit '{name}'; there are {', '.join(u.value for u in Unit)}") from None


@dataclass(frozen=True, slots=True)
class _Bound:
    """The shapes of inputs that the user gave, and the values of inputs that become constants."""

    shapes: Mapping[str, str]
    constants: Mapping[str, Array]


_Step: TypeAlias = tuple[str, list[Op], str, Mapping[str, tuple[int, ...]]]


def _steps(
    source: Path,
    bound: _Bound,
    tokens: int,
    function: str | None,
    custom_ops: CustomOps,
    tell: Callable[[str], None],
) -> Generator[_Step]:
    """Yield the parts of a source to plan, each as a title, its operations, the class of such models (see `group_of`),
    and the shapes of a file's inputs.
    """
    name = str(source)
    if not is_checkpoint(source):
        with (
            with_custom_ops(source, custom_ops, "a plan", None, tell) as resolved,
            opened_graph(resolved.path, function, tell) as model,
        ):
            require_defined(model, custom_ops, "a plan")
            yield _whole(name, model, bound, {})
        return
    with graph_of(source, function, tell) as path:
        model = load(path)
        inputs = {value.name for value in inputs_of(model.graph)}
        is_decoder = inputs == {"input_ids"} and any(value.name == "logits" for value in model.graph.output)
        if not is_decoder:
            # Plan a decoder that reads an encoder's output for whole sequences, since its graph has no cache.
            part = "" if function is None else f" {function},"
            sizes = {"batch": 1, "tokens": tokens, "source": tokens, "twice the frames": _WHISPER_FRAMES}
            yield _whole(f"{name},{part} {tokens} tokens", model, bound, sizes)
            return
        prompt = _core(model, bound, {"batch": 1, "tokens": tokens})
        yield f"{name}, prompt of {tokens} tokens", _with_last_logits(ops_of(prompt), tokens), "prefill", {}
        step = _core(model, bound, {"batch": 1, "tokens": 1})
        yield f"{name}, one token after {tokens}", ops_of(step, past_tokens=tokens), "decode", {}


def ops_for(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> tuple[list[Op], str]:
    """The operations of a model with these input shapes, and the class of such models (see `group_of`)."""
    ops = ops_of(_core(model, _Bound({name: ",".join(map(str, dims)) for name, dims in shapes.items()}, {}), {}))
    return ops, group_of(ops)


def _whole(title: str, model: ModelProto, bound: _Bound, sizes: Mapping[str, int]) -> _Step:
    core = _core(model, bound, sizes)
    ops, values = ops_of(core), Values(core.graph)
    shapes = {each.name: values.shape(each.name) or () for each in inputs_of(core.graph)}
    return title, ops, group_of(ops), {name: tuple(dim or 0 for dim in shape) for name, shape in shapes.items()}


def _with_last_logits(ops: list[Op], tokens: int) -> list[Op]:
    """Adapt the operations to the engine, which computes logits only for the last token.

    The last matrix product is the one that computes the logits.
    """
    last = max(index for index, op in enumerate(ops) if op.is_product)
    op = ops[last]
    one = replace(op, flops=op.flops / tokens, rows=1, read=op.read / tokens, written=op.written / tokens)
    return [*ops[:last], one, *ops[last + 1 :]]


@contextmanager
def opened_graph(
    source: Path, function: str | None = None, tell: Callable[[str], None] | None = None
) -> Generator[ModelProto]:
    """The ONNX model of a file: .onnx, or one of Apple's, which is converted. Raises the errors of `plan`."""
    match source.suffix:
        case ".onnx":
            if function is not None:
                raise InvalidArgumentError("an ONNX model has one function: leave --function out")
            yield load(source)
        case ".mlpackage" | ".mlmodel" | ".mlmodelc" | ".aimodel":
            # Imported only here, since these modules load the libraries of conversions.
            from triune.api.conversions import coreai_to_onnx, coreml_to_onnx

            tell = tell or _tell_nobody
            raised = coreai_to_onnx if source.suffix == ".aimodel" else coreml_to_onnx
            with tempfile.TemporaryDirectory(prefix="triune-plan-") as folder:
                path = Path(folder) / "model.onnx"
                raised(source, path, function, tell, None)
                yield load(path)
        case _:
            raise InvalidArgumentError(
                f"'{source.name}' cannot be planned; a plan is made of .onnx, .mlpackage, .mlmodelc, .aimodel, .gguf, "
                "or of a directory with config.json"
            )


def _core(model: ModelProto, bound: _Bound, sizes: Mapping[str, int]) -> ModelProto:
    """Bring the model to core operators, with fixed shapes."""
    copy = ModelProto()
    copy.CopyFrom(model)
    bind_constants(copy, typed_constants(copy, bound.constants))
    apply_shapes(copy, _fixed(copy, bound.shapes, sizes))
    with WeightFile() as file, translated_failures(copy):
        return normalize(copy, keep=KEPT, file=file)


def _fixed(model: ModelProto, shapes: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, InputShape]:
    """Fixed shapes of all inputs: those that the user gave in `shapes`. Of other inputs, free dimensions get the sizes
    in `sizes`, by name, and a free first dimension gets 1.

    Raises:
        InvalidArgumentError: a dimension is free, or a given shape is not fixed.
    """
    found = parse_shapes([f"{name}={shape}" for name, shape in shapes.items()])
    for name, shape in found.items():
        if shape.is_enumerated or not all(isinstance(dim, int) for dim in shape.choices[0]):
            raise InvalidArgumentError(f"the shape of '{name}' must be one fixed shape for a plan, such as 1,128")
    values = Values(model.graph)
    free: list[str] = []
    options: list[str] = []
    for value in inputs_of(model.graph):
        shape = values.shape(value.name)
        if value.name in found or shape is None or None not in shape:
            continue
        dims = value.type.tensor_type.shape.dim
        given = [
            size if size is not None else sizes.get(dims[axis].dim_param, 0 if axis else 1)
            for axis, size in enumerate(shape)
        ]
        if not prod(given):
            names = [dims[axis].dim_param or f"axis {axis}" for axis, size in enumerate(given) if not size]
            free.append(f"'{value.name}' ({', '.join(names)})")
            options.append(f"--shape {value.name}={','.join(str(size or 128) for size in given)}")
        found[value.name] = InputShape((tuple(given),))
    if free:
        raise InvalidArgumentError(
            f"a plan needs the sizes of all dimensions, and these inputs have free ones: {', '.join(free)}; give them, "
            f"such as {' '.join(options)}"
        )
    return found


def _tell_nobody(what: str) -> None:
    del what
