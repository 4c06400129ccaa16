"""Does a pass change what a program computes? The program before and after each pass, on inputs that reveal faults.

What the program was written of is compared with ONNX Runtime by `verify`. This is about the passes alone, and names the
one that is wrong.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto

from triune.core.errors import TriuneError, UnsupportedError
from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering import LowerOptions
from triune.coreml.mil import Array
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import Package, read_specification
from triune.graph.audit import (
    Difference,
    Finding,
    InputSet,
    differences,
    find_difference,
    inputs_of_model,
    revealing_inputs,
)
from triune.graph.passes.narrow_values import narrow_array
from triune.graph.precision import TOLERANCES

if TYPE_CHECKING:
    from triune.coreml.lowering.interface import Feature, Interface
    from triune.graph.passes.run import Watcher

_DOUBT = 10.0
"""How many times further apart than two executors of the program before a pass its answers after it may be."""

_HALF_PASS = "common::add_fp16_cast"
"""It changes answers as fp16 does, which is what was asked for: `verify` tells how much that is."""

_LAST_STEP = "naming"
"""What `passes.pipeline.optimize` tells last: from here on the program must be one that can be computed."""

_WITHIN_HALF = frozenset(["given", "noise", "fractions", "masks", "zeros", "signed zeros", "ends"])
"""The sets of inputs with which programs stay within fp16."""


class Audit:
    """Its `begin` is what `lower` takes as `audit`.

    The program is computed before the first pass and after each that changed it.

    Attributes:
        findings: the answers that passes changed, in order.
        changed: the passes that changed the program.
    """

    def __init__(self, given: Mapping[str, Array] | None = None) -> None:
        """Args:
        given: a set of inputs beside those that are made up, by the names and in the types of the source.
        """
        self.findings: list[Finding] = []
        self.changed: list[str] = []
        self._given = given
        self._inputs: Sequence[InputSet] = ()
        self._version = 0
        self._is_half = False
        self._before: _State | None = None
        self._refusal = "it was not converted"
        self._listing: Sequence[Any] | None = None
        self._pending: list[str] = []

    def begin(self, graph: ModelProto, interface: "Interface", options: LowerOptions) -> "Watcher[Any]":
        """See `lower`.

        Args:
            graph: what was written as the program.
            interface: of the package.
            options: of the conversion.

        Raises:
            UnsupportedError: no inputs can be made up.
        """
        made = revealing_inputs(inputs_of_model(graph, options.shapes))
        given = [] if self._given is None else [InputSet("given", self._given)]
        features = {feature.source: feature for feature in interface.inputs}
        self._inputs = [_passed(each, features) for each in (*given, *made)]
        self._version = int(interface.opset)
        return self._watch

    def require_answers(self) -> None:
        """Raises UnsupportedError where the program could not be computed, so that nothing was found out."""
        if self._before is None or not any(each is not None for each in self._before.answers):
            raise UnsupportedError(
                "the program takes none of the inputs that were made up, so that its passes were not checked: "
                f"{self._refusal}; give inputs that it takes with --input"
            )

    def _watch(self, step: str, program: Any, /) -> None:
        listing = _listing(program)
        if listing != self._listing:
            self._listing = listing
            if step:
                self.changed.append(step)
                self._pending.append(step)
            self._look(program)
        if step == _LAST_STEP and self._pending and self._before is not None:
            failure = Difference("answers", f"an error: {self._refusal}", (), np.inf)
            self.findings.append(Finding(self._pending[0], "all", "any", failure))

    def _look(self, program: Any) -> None:
        """Judge the passes since the last time that the program could be computed."""
        try:
            after = _State(program, self._version, self._inputs)
        except TriuneError as error:
            # Some passes leave to the next what no program may have: more than five dimensions, weights to be cast.
            self._refusal = str(error)
            return
        steps, self._pending = self._pending, []
        self._is_half = self._is_half or _HALF_PASS in steps
        if self._before is not None and _HALF_PASS not in steps:
            for inputs, before, answers in zip(self._inputs, self._before.answers, after.answers, strict=True):
                if before is not None and (not self._is_half or inputs.name in _WITHIN_HALF):
                    self.findings += self._judged(", ".join(steps), inputs, before, answers)
        self._before = after

    def _judged(
        self, step: str, inputs: InputSet, before: Mapping[str, Array], after: Mapping[str, Array] | None
    ) -> Iterator[Finding]:
        if after is None:
            yield Finding(step, "all", inputs.name, Difference("answers", "an error", (), np.inf))
            return
        tolerance = TOLERANCES["fp16" if self._is_half else "fp32"]
        found = list(differences(step, inputs.name, before, after, tolerance, largest_input=inputs.largest))
        doubt = self._before.doubt(inputs.arrays, before) if found and self._before is not None else {}
        for each in found:
            if not each.difference.error <= _DOUBT * doubt.get(each.output, 0.0):
                yield each


class _State:
    """A program between two passes."""

    def __init__(self, program: Any, version: int, inputs: Sequence[InputSet]) -> None:
        # It needs coremltools, as does whoever has a program.
        from triune.coreml.lowering.saving import specification_of

        self._folder = tempfile.TemporaryDirectory()
        specification = specification_of(program, version, Path(self._folder.name))
        self._package: Package = read_specification(specification, Path(self._folder.name))
        executor = OnnxExecutor(self._package)
        self.answers = [_answers(executor, each.arrays) for each in inputs]

    def doubt(self, inputs: Mapping[str, Array], answers: Mapping[str, Array]) -> dict[str, float]:
        """How far each output is from that of the interpreter, relative to its largest value."""
        other = _answers(Interpreter(self._package), inputs)
        if other is None:
            return {}
        found = {name: find_difference(array, other[name], 0.0) for name, array in answers.items()}
        return {name: each.error for name, each in found.items() if each is not None}


def _answers(executor: OnnxExecutor | Interpreter, inputs: Mapping[str, Array]) -> dict[str, Array] | None:
    """None where the program cannot compute with these inputs: what is made up need not suit it."""
    try:
        outputs, _ = executor.run(inputs, {})
    except TriuneError:
        return None
    return outputs


def _passed(inputs: InputSet, features: "Mapping[str, Feature]") -> InputSet:
    """As the program takes them: under its names, truths as whole numbers, no scalars."""
    arrays: dict[str, Array] = {}
    for name, array in inputs.arrays.items():
        if name in features:
            narrow = narrow_array(name, array)
            narrow = narrow.astype(np.int32) if narrow.dtype == np.bool_ else narrow
            narrow = narrow.astype(np.float32) if features[name].is_wide else narrow
            arrays[features[name].name] = narrow.reshape(narrow.shape or (1,))
    return InputSet(inputs.name, arrays, inputs.is_extreme)


def _listing(program: Any) -> list[Any]:
    """What tells whether a pass changed a program: its operations and how they hang together."""
    found: list[Any] = []

    def look(block: Any) -> None:
        for op in block.operations:
            inputs = [_names(each) for each in op.inputs.values()]
            found.append((op.op_type, [(each.name, str(each.dtype)) for each in op.outputs], inputs))
            for inner in op.blocks:
                look(inner)
        found.append([each.name for each in block.outputs])

    for function in program.functions.values():
        look(function)
    return found


def _names(value: Any) -> Any:
    return [each.name for each in value] if hasattr(value, "__len__") else value.name
