"""Find the operation that probably makes a unit's outputs wrong: the first one whose result on that unit is wrong."""

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx.shape_inference
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from triune.backends.gate.compare import relative_error
from triune.backends.gate.sample import Sample
from triune.backends.tensor.compile import compile_one
from triune.backends.tensor.executable import SharedExecutable
from triune.config.placement import Recipe
from triune.core.datatypes import Array
from triune.core.errors import TriuneError
from triune.core.runtime import Executable
from triune.core.scratch import HeldFolder
from triune.core.units import Unit
from triune.graph.index import label
from triune.graph.inference import infer_shapes
from triune.graph.load import load
from triune.graph.values import Values, attributes_of
from triune.graph.weight_files import array_of, num_bytes, with_data
from triune.hardware.chips import find_chip
from triune.hardware.rules import NEWEST_TIER, tier_of
from triune.hardware.rules.hazards import Observed, explanation
from triune.runtimes.machine import Machine

_log = logging.getLogger(__name__)

_MOST_WEIGHTS: Final = 256 << 20
"""Models with more bytes of weights than this are not examined, since the search copies and compiles the model
again.
"""

_MOST_WATCHED: Final = 128
"""The most values of a graph that are compared in one run. In a larger graph, values at equal distances are compared
first, and in the next run those between the last right and the first wrong value.
"""

_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def likely_cause(
    path: Path,
    sample: Sample,
    truth: SharedExecutable,
    executable: SharedExecutable,
    tolerance: float,
    machine: Machine,
) -> str:
    """Describe the operation that probably makes a unit's answers wrong, and why; empty if it is not found.

    The model is compiled again, for `cpu` and for the unit, with the results of its operations as further outputs. The
    result names the first operation whose result is wrong although its operands are right. Compilers may fuse fewer
    operations in this form of the model, so the result is probable, not certain.

    Args:
        path: the model's file. Only ONNX files are examined.
        sample: the sample for which an output was wrong.
        truth: the model on `cpu`.
        executable: the model on the unit.
        tolerance: the allowed error, relative to a result's largest element.
        machine: the machine.
    """
    if path.suffix != ".onnx":
        return ""
    try:
        inputs = _inputs_of(sample, truth)
        return _Search(load(path), inputs, truth, executable, tolerance, machine).cause()
    except (TriuneError, OSError, onnx.shape_inference.InferenceError) as error:
        # Only log this error: the unit is refused whether the operation is found or not.
        _log.info("which operation is wrong on %s is not found: %s", executable.unit.value, error)
        return ""


class _Recorder:
    """An executable that records the inputs of its first run."""

    def __init__(self, executable: Executable) -> None:
        self.inputs: Mapping[str, Array] = {}
        self.signature = executable.signature
        self.unit = executable.unit
        self.precision = executable.precision
        self.is_steady = executable.is_steady
        self.report = executable.report
        self.interrupt = executable.interrupt
        self.close = executable.close
        self._executable = executable

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Run the executable, and keep the inputs of the first call."""
        self.inputs = self.inputs or dict(inputs)
        return self._executable.run(inputs, outputs)


def _inputs_of(sample: Sample, truth: Executable) -> Mapping[str, Array]:
    recorder = _Recorder(truth)
    sample(recorder)
    return recorder.inputs


class _Search:
    """The search for the wrong operation in one model, on one unit."""

    def __init__(
        self,
        model: ModelProto,
        inputs: Mapping[str, Array],
        truth: SharedExecutable,
        executable: SharedExecutable,
        tolerance: float,
        machine: Machine,
    ) -> None:
        self._is_small = sum(num_bytes(each) for each in model.graph.initializer) <= _MOST_WEIGHTS
        self._model = with_data(model) if self._is_small else model
        self._inputs = inputs
        self._recipes = (truth.recipe, executable.recipe)
        self._precision = executable.precision
        self._unit = executable.unit
        self._tolerance = tolerance
        self._machine = machine
        self._expected: dict[str, Array] = {}
        self._inferred = infer_shapes(self._model) if self._is_small else self._model
        self._values = Values(self._inferred.graph)

    def cause(self) -> str:
        """Describe the operation whose result is wrong, and why; "" if it is not found, or if the model's
        weights are too large to search.
        """
        nodes = [node for node in self._model.graph.node if self._watched(node)]
        if not self._is_small or not nodes:
            return ""
        step = math.ceil(len(nodes) / _MOST_WATCHED)
        # In a large model, compare only every `step`-th node, counted from the end, so that the last node is always
        # among them.
        found = self._first_wrong(nodes[::-1][::step][::-1])
        if found is not None and step > 1:
            end = nodes.index(found) + 1
            found = self._first_wrong(nodes[max(0, end - step) : end]) or found
        if found is None:
            return ""
        reason = explanation(self._observed(found), self._unit, self._precision, self._tier())
        return f"{label(found)}{f': {reason}' if reason else ', whose result is the first that is wrong'}"

    def _watched(self, node: NodeProto) -> bool:
        return any(name and self._values.elem_type(name) in _FLOATS for name in node.output)

    def _first_wrong(self, watched: Sequence[NodeProto]) -> NodeProto | None:
        names = [name for node in watched for name in node.output if self._values.elem_type(name) in _FLOATS]
        expected, found = (self._compute(names, recipe) for recipe in self._recipes)
        self._expected |= expected
        wrong = {name for name in names if relative_error(expected[name], found[name]) > self._tolerance}
        return next((node for node in watched if wrong.intersection(node.output)), None)

    def _compute(self, names: Sequence[str], recipe: Recipe) -> Mapping[str, Array]:
        """Compile the model by a recipe, with the named values as further outputs, and compute them."""
        model = ModelProto()
        model.CopyFrom(self._model)
        listed = {each.name for each in model.graph.output}
        model.graph.output.extend(self._described(name) for name in names if name not in listed)
        with HeldFolder() as folder:
            path = folder / "model.onnx"
            path.write_bytes(model.SerializeToString())
            executable = compile_one(path, recipe, self._machine)
            try:
                return executable.run(self._inputs, list(names))
            finally:
                executable.close()

    def _described(self, name: str) -> ValueInfoProto:
        shape = self._values.shape(name)
        # An unknown rank is declared as no shape, and an unknown size as a free one.
        return helper.make_tensor_value_info(name, self._values.elem_type(name), shape)

    def _observed(self, node: NodeProto) -> Observed:
        """Compute a node's operands and results on `cpu`, for the rules that know which values a unit computes wrongly
        (`hardware.rules`).
        """
        made = {name for each in self._model.graph.node for name in each.output}
        names = [name for name in dict.fromkeys((*node.input, *node.output)) if self._is_float(name) and name in made]
        if not {*names} <= {*self._expected}:
            self._expected |= self._compute(names, self._recipes[0])
        arrays = {name: self._expected[name] for name in names}
        arrays |= {name: self._inputs[name] for name in node.input if name in self._inputs}
        arrays |= {each.name: array_of(each) for each in self._model.graph.initializer if each.name in node.input}
        operands = [arrays[name] for name in node.input if name in arrays and arrays[name].dtype.kind in "fV"]
        results = [arrays[name] for name in node.output if name in arrays]
        elements = max((array.size for array in operands), default=0)
        return Observed(
            op=node.op_type,
            result=_largest(results),
            operand=_largest(operands),
            num_terms=elements // max(1, results[0].size) if results and node.op_type.startswith("Reduce") else 0,
            is_moved=self._is_moved(node, arrays),
            is_whole=all(bool(np.all(each == np.floor(each))) for each in map(_finite, results)),
            has_nan=any(bool(np.isnan(each.astype(np.float64)).any()) for each in (*operands, *results)),
            has_zero=any(bool(np.any(each == 0)) for each in operands),
        )

    def _is_float(self, name: str) -> bool:
        return self._values.elem_type(name) in _FLOATS

    def _is_moved(self, node: NodeProto, arrays: Mapping[str, Array]) -> bool:
        rank = self._values.rank(node.input[0]) if node.input else None
        if node.op_type == "Split":
            return rank is not None and attributes_of(node).get("axis", 0) in (-1, rank - 1)
        if node.op_type != "Slice" or rank is None or not {*node.input[1:4:2]} <= {*arrays}:
            return False
        starts = arrays[node.input[1]].reshape(-1)
        axes = arrays[node.input[3]].reshape(-1) if len(node.input) > 3 and node.input[3] else np.arange(len(starts))
        return any(int(axis) in (-1, rank - 1) and int(start) != 0 for axis, start in zip(axes, starts, strict=True))

    def _tier(self) -> int:
        """The tier of this machine's Neural Engine, a number for its generation (`hardware.rules.tier_of`); the newest
        tier if it is emulated.
        """
        chip = find_chip(self._machine.status(Unit.ANE).description.partition("'s ")[0])
        return tier_of(chip.generation) if chip is not None else NEWEST_TIER


def _finite(array: Array) -> Array:
    wide = array.astype(np.float64)
    return wide[np.isfinite(wide)]


def _largest(arrays: Collection[Array]) -> float:
    return max((float(np.abs(each).max()) for each in _all_finite(arrays)), default=0.0)


def _all_finite(arrays: Collection[Array]) -> Iterator[Array]:
    for each in map(_finite, arrays):
        if each.size:
            yield each
