"""Find passes that change what a program computes: run it before and after each pass, and compare.

The inputs are chosen to reveal differences (`graph.audit`). `verify` compares the final program with its ONNX model in
ONNX Runtime; this module compares only passes, and names the one at fault.
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
"""An output counts as changed by a pass if it differs by more than this multiple of the difference that two executors
had before the pass.
"""

_HALF_PASS = "common::add_fp16_cast"
"""The pass that casts to fp16. It changes outputs on purpose; `verify` measures by how much."""

_LAST_STEP = "naming"
"""The last step of `passes.pipeline.optimize`. From this step on, the program must be executable."""

_WITHIN_HALF = frozenset(["given", "noise", "fractions", "masks", "zeros", "signed zeros", "ends"])
"""The names of the input sets (`InputSet.name`) for which values stay in the range of fp16."""


class Audit:
    """Audits the passes of a conversion; pass its `begin` to `lower` as `audit`.

    The program runs before the first pass and after each pass that changed it.

    Attributes:
        findings: the outputs that passes changed, in the order of the passes.
        changed: the passes that changed the program.
    """

    def __init__(self, given: Mapping[str, Array] | None = None) -> None:
        """Make an audit that is not watching yet.

        Args:
            given: an additional set of inputs: arrays by the input names of the ONNX model, and of its dtypes.
        """
        self.findings: list[Finding] = []
        self.changed: list[str] = []
        self._given = given
        self._inputs: Sequence[InputSet] = ()
        self._version = 0
        self._is_half = False
        self._before: _Snapshot | None = None
        self._refusal = "it was not converted"
        self._operations: Sequence[Any] | None = None
        self._pending: list[str] = []

    def begin(self, graph: ModelProto, interface: "Interface", options: LowerOptions) -> "Watcher[Any]":
        """Start to watch a conversion: the argument `audit` of `lower`. The findings of a conversion that was watched
        before are forgotten.

        Args:
            graph: the ONNX graph that the program was written from.
            interface: the inputs and outputs of the package.
            options: the options of the conversion.

        Returns:
            a function that must be called with each pass and the program after it.

        Raises:
            UnsupportedError: values cannot be made up for the inputs.
        """
        # If a conversion is repeated with more nodes in fp32, only the findings on its last program count.
        self.findings, self.changed, self._pending = [], [], []
        self._is_half, self._before, self._operations = False, None, None
        made = revealing_inputs(inputs_of_model(graph, options.shapes))
        given = [] if self._given is None else [InputSet("given", self._given)]
        features = {feature.source: feature for feature in interface.inputs}
        self._inputs = [_as_program_inputs(each, features) for each in (*given, *made)]
        self._version = int(interface.opset)
        return self._watch

    def require_answers(self) -> None:
        """Raises UnsupportedError if the program could not be run, so that the passes were not checked."""
        if self._before is None or not any(each is not None for each in self._before.answers):
            raise UnsupportedError(
                "the program takes none of the inputs that were made up, so that its passes were not checked: "
                f"{self._refusal}; give inputs that it takes with --input"
            )

    def _watch(self, step: str, program: Any, /) -> None:
        listing = _operations_of(program)
        if listing != self._operations:
            self._operations = listing
            if step:
                self.changed.append(step)
                self._pending.append(step)
            self._compare(program)
        if step == _LAST_STEP and self._pending and self._before is not None:
            failure = Difference("answers", f"an error: {self._refusal}", (), np.inf)
            self.findings.append(Finding(self._pending[0], "all", "any", failure))

    def _compare(self, program: Any) -> None:
        """Compare the program with its last state that could be run, and attribute differences to the passes since
        then.
        """
        try:
            after = _Snapshot(program, self._version, self._inputs)
        except TriuneError as error:
            # Go on with the next pass: some passes leave a program that is not valid yet, with tensors of more than
            # five dimensions, weights that are not cast, or packed weights whose scales are cast already.
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
        found = list(differences(step, inputs, before, after, tolerance))
        doubt = self._before.doubt(inputs.arrays, before) if found and self._before is not None else {}
        for each in found:
            if not each.difference.error <= _DOUBT * doubt.get(each.output, 0.0):
                yield each


class _Snapshot:
    """A program between two passes, with its outputs for each set of inputs."""

    def __init__(self, program: Any, version: int, inputs: Sequence[InputSet]) -> None:
        # Import here: the module needs coremltools, which is optional, but certainly installed now, since it has built
        # the program.
        from triune.coreml.lowering.saving import specification_of

        self._folder = tempfile.TemporaryDirectory()
        try:
            specification = specification_of(program, version, Path(self._folder.name))
        except (TriuneError, OSError, MemoryError):
            raise
        # coremltools raises exceptions of many classes for a program that is not valid between two passes.
        except Exception as error:
            raise UnsupportedError(f"coremltools does not save it: {error}") from error
        self._package: Package = read_specification(specification, Path(self._folder.name))
        executor = OnnxExecutor(self._package)
        self.answers = [_outputs_of(executor, each.arrays) for each in inputs]

    def doubt(self, inputs: Mapping[str, Array], answers: Mapping[str, Array]) -> dict[str, float]:
        """For each output, how far ONNX Runtime and Triune's interpreter differ, relative to its largest value."""
        other = _outputs_of(Interpreter(self._package), inputs)
        if other is None:
            return {}
        found = {name: find_difference(array, other[name], 0.0) for name, array in answers.items()}
        return {name: each.error for name, each in found.items() if each is not None}


def _outputs_of(executor: OnnxExecutor | Interpreter, inputs: Mapping[str, Array]) -> dict[str, Array] | None:
    """Run a program; return None if it rejects the inputs, which are made up and may not fit it."""
    try:
        outputs, _ = executor.run(inputs, {})
    except TriuneError:
        return None
    return outputs


def _as_program_inputs(inputs: InputSet, features: "Mapping[str, Feature]") -> InputSet:
    """Convert inputs to those of the program: its names, int32 for bool, and shape [1] for scalars."""
    arrays: dict[str, Array] = {}
    for name, array in inputs.arrays.items():
        if name in features:
            narrow = narrow_array(name, array)
            narrow = narrow.astype(np.int32) if narrow.dtype == np.bool_ else narrow
            narrow = narrow.astype(np.float32) if features[name].is_wide else narrow
            arrays[features[name].name] = narrow.reshape(narrow.shape or (1,))
    return InputSet(inputs.name, arrays, inputs.is_extreme)


def _operations_of(program: Any) -> list[Any]:
    """List the operations of a program and their operands. If a pass changes nothing, the list stays equal."""
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
