"""A runtime that supports custom operators."""

import functools
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.core.requests import Parameter
from triune.core.runtime import NO_OPTIONS, Executable, Runtime
from triune.core.scratch import HeldFolder
from triune.core.tensors import Signature
from triune.core.units import Unit
from triune.graph.custom import CustomOps
from triune.graph.custom.resolve import numpy_nodes, require_bodies
from triune.graph.custom.stages import NumpyFunctionError, RunPiece, Stages
from triune.graph.load import load, read_model
from triune.graph.piece_folder import PieceFolder
from triune.graph.precision import precision_of
from triune.graph.split import Piece
from triune.hosting import FAULT_LIMITS, HostedExecutable
from triune.runtimes.cache_holds import hold_path
from triune.runtimes.custom.resolved import resolved_file
from triune.runtimes.failures import run_failure

_CALLS_NUMPY: Final = ("onnxruntime",)
"""The runtimes that can run the pieces of a model between which numpy computes custom operators."""

_REFUSALS = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError)
"""The errors that numpy raises for values and shapes that a function does not accept."""


class WithCustomOps:
    """A `Runtime` that wraps another one and also loads models with custom operators.

    Operators with a body become functions of the model. Operators in numpy run on `cpu`, and ONNX Runtime computes the
    graph between them. If a file of code defines operators, the model runs in its own process, since that code may
    hold the GIL, and may crash.
    """

    def __init__(self, runtime: Runtime, ops: CustomOps, run_bytes: int | None = None) -> None:
        """Args:
        runtime: the wrapped runtime.
        ops: the custom operators.
        run_bytes: the memory limit of a run, without the model's weights; None sets no limit.
        """
        self._runtime = runtime
        self._ops = ops
        self._run_bytes = run_bytes

    @property
    def name(self) -> str:
        """The backend name of the wrapped runtime."""
        return self._runtime.name

    @property
    def default_filenames(self) -> Sequence[str]:
        """The default filenames of the wrapped runtime."""
        return self._runtime.default_filenames

    @property
    def option_names(self) -> Collection[str]:
        """The option names of the wrapped runtime."""
        return self._runtime.option_names

    def units(self) -> Sequence[Unit]:
        """The units of the wrapped runtime."""
        return self._runtime.units()

    def inspect(self, path: Path, options: Mapping[str, Parameter] = NO_OPTIONS) -> Signature:
        """Read the signature of a model file: see `Runtime.inspect`. The errors of `resolved_file` are raised too."""
        return self._runtime.inspect(resolved_file(path, self._ops), options)

    def load(self, path: Path, *, unit: Unit, num_threads: int, options: Mapping[str, Parameter]) -> Executable:
        """Compile a model file: see `Runtime.load`.

        Raises:
            InvalidArgumentError: also if a node does not fit the numpy function of its operator.
            UnsupportedError: also if only numpy computes an operator, and the unit is not `cpu`; or if such an operator
                is in a branch, a loop or a function.
        """
        file = resolved_file(path, self._ops)
        hold_path(file)
        if file.suffix != ".onnx" or not self._ops.ops:
            return self._runtime.load(file, unit=unit, num_threads=num_threads, options=options)
        model = read_model(file)
        if self.name not in _CALLS_NUMPY:
            require_bodies(model, self._ops, f"unit '{unit.value}'")
        if not numpy_nodes(model, self._ops):
            return self._runtime.load(file, unit=unit, num_threads=num_threads, options=options)
        staged = functools.partial(self._staged, file, unit, num_threads, dict(options))
        if not self._ops.files:
            return staged()
        limits = replace(FAULT_LIMITS, run_bytes=self._run_bytes)
        return HostedExecutable(staged, f"'{path}' on '{unit.value}'", limits=limits)

    def _staged(self, path: Path, unit: Unit, num_threads: int, options: Mapping[str, Parameter]) -> "StagedExecutable":
        """Cut a model at the operators that numpy computes, and compile the pieces between them."""
        model = load(path)
        signature = self._runtime.inspect(path, options)
        pieces = Pieces()
        with ExitStack() as undo:
            held = HeldFolder()
            undo.callback(held.remove)
            folder = PieceFolder(held.path)

            def compile_piece(piece: Piece) -> RunPiece:
                executable = self._runtime.load(folder.save(piece), unit=unit, num_threads=num_threads, options=options)
                undo.callback(executable.close)
                return functools.partial(pieces.run, pieces.add(executable), piece.outputs)

            stages = Stages(model, self._ops, numpy_nodes(model, self._ops), compile_piece)
            return StagedExecutable(stages, pieces, signature, unit, precision_of(model), undo.pop_all())


class Pieces:
    """The executables of a model's pieces; at most one of them runs at a time."""

    def __init__(self) -> None:
        self._executables: list[Executable] = []
        self._running: Executable | None = None
        self._is_interrupted = False

    def add(self, executable: Executable) -> int:
        """Add the executable of a piece, and return the piece's number."""
        self._executables.append(executable)
        return len(self._executables) - 1

    def reports(self) -> Sequence[str]:
        """The reports of the pieces' executables, each text once."""
        return list(dict.fromkeys(each.report for each in self._executables if each.report))

    def run(self, number: int, outputs: Sequence[str], inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run the piece with this number. Raises the errors of `Executable.run`, and UnavailableError after an
        interruption.
        """
        self._running = self._executables[number]
        try:
            self.check()
            return self._running.run(inputs, outputs)
        finally:
            self._running = None

    def begin(self) -> None:
        """Record that a run of the model begins, which is not interrupted yet."""
        self._is_interrupted = False

    def check(self) -> None:
        """Raises UnavailableError if the run was interrupted."""
        if self._is_interrupted:
            raise UnavailableError("the run took too long, and was ended")

    def interrupt(self) -> None:
        """Ask the piece that runs to end, and let none begin before the next run of the model."""
        self._is_interrupted = True
        running = self._running
        if running is not None:
            running.interrupt()


class StagedExecutable:
    """A model whose pieces a runtime computes, and whose custom operators numpy computes."""

    is_steady = False

    def __init__(
        self,
        stages: Stages,
        pieces: Pieces,
        signature: Signature,
        unit: Unit,
        precision: str,
        held: ExitStack,
    ) -> None:
        """Args:
        stages: the model, cut at the custom operators that numpy computes.
        pieces: the executables of its pieces.
        signature: the model's inputs and outputs.
        unit: the unit that computes the pieces.
        precision: the floating-point format of the computation.
        held: the resources to free on `close`: the pieces and their files.
        """
        self.signature = signature
        self.unit = unit
        self.precision = precision
        self._stages = stages
        self._pieces = pieces
        self._held = held

    @property
    def report(self) -> str:
        """The custom operators that numpy computes, and the runtime's reports on the pieces."""
        custom = dict.fromkeys(str(each.custom.op) for each in self._stages.stages if each.custom is not None)
        return "; ".join([*self._pieces.reports(), f"numpy: {', '.join(custom)}"])

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the outputs: see `Executable.run`."""
        known = {spec.name: spec for spec in self.signature.inputs}
        missing = [name for name, spec in known.items() if name not in inputs and not spec.is_optional]
        if missing:
            raise InvalidArgumentError(f"the model cannot compute these inputs: missing are {', '.join(missing)}")
        self._pieces.begin()
        try:
            found = self._stages.run(inputs, outputs)
        except NumpyFunctionError as error:
            self._pieces.check()
            raise run_failure(error, inputs, is_refusal=isinstance(error.__cause__, _REFUSALS)) from error
        return {name: found[name] for name in outputs}

    def interrupt(self) -> None:
        """Ask the run to end. A numpy function goes on until it returns."""
        self._pieces.interrupt()

    def close(self) -> None:
        """Free the pieces and their files."""
        self._held.close()
