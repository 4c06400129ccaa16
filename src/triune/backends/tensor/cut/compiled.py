"""Compiles the stretches of a model, each of which is consecutive nodes for one unit, and moves a stretch that its unit
refuses or computes wrongly to another unit.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

from triune.backends.attempt import Attempt
from triune.backends.gate.compare import compare
from triune.backends.tensor.compile import compile_one
from triune.backends.tensor.cut.graph import CutGraph, without_path
from triune.backends.tensor.cut.recipe import segment_recipe
from triune.backends.tensor.cut.stretches import Choice, Stretch
from triune.backends.tensor.executable import SharedExecutable
from triune.config.model_config import ModelConfig
from triune.config.parameters import tolerance_of
from triune.core.errors import TriuneError
from triune.core.units import Unit
from triune.core.verdict import Verdict
from triune.graph.piece_folder import PieceFolder
from triune.graph.split import Piece, split
from triune.runtimes.machine import Machine

_log = logging.getLogger(__name__)

MAX_DEPTH: Final = 3
"""The most times that a stretch (`Stretch`) is halved because its unit refuses it or computes it wrongly. Halving moves
only the necessary part to another unit.
"""

_NUM_RUNS: Final = 5
_MAX_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Compiled:
    """A compiled stretch (`Stretch`: consecutive nodes of the graph, for one unit).

    Attributes:
        stretch: the stretch.
        piece: its piece of the graph.
        executable: the piece, compiled. This object has a reference to it.
        verdict: how far its results differ from those of fp32 on `cpu`, for the same inputs; None on `cpu`, or if they
            are random.
        ms: the time of a run on sample input.
    """

    stretch: Stretch
    piece: Piece
    executable: SharedExecutable
    verdict: Verdict | None
    ms: float


class StretchCompiler:
    """Compiles stretches of one graph (`Stretch`: consecutive nodes for one unit). Compiled stretches are kept until
    `close`, so that another call of `compile` can use them.
    """

    def __init__(
        self, graph: CutGraph, config: ModelConfig, folder: Path, num_threads: int, machine: Machine, attempt: Attempt
    ) -> None:
        """Args:
        graph: the graph.
        config: the model's configuration.
        folder: an existing, empty folder for the pieces' files. It must exist as long as the executables.
        num_threads: the CPU threads of one run of a segment.
        machine: the machine with the runtimes.
        attempt: cancels the build.
        """
        self._graph = graph
        self._config = config
        self._folder = PieceFolder(folder)
        self._num_threads = num_threads
        self._machine = machine
        self._attempt = attempt
        self._kept: dict[tuple[int, int, Choice], Compiled] = {}

    def close(self) -> None:
        """Free the executables that `take` has not taken."""
        for each in self._kept.values():
            each.executable.close()
        self._kept.clear()

    def take(self, compiled: Sequence[Compiled]) -> None:
        """Hand these executables over to the caller, and free all others."""
        for each in compiled:
            each.executable.hold()
        self.close()

    def compile(self, stretches: Sequence[Stretch]) -> list[Compiled]:
        """Compile stretches, each for the first of its choices (`Stretch.choices`) that accepts it and computes it
        within the tolerance.

        A stretch that is refused or wrong is halved, `MAX_DEPTH` times at most, so that as few nodes as possible move
        to another unit. Neighbouring stretches with the same final choice are joined.

        Returns:
            the compiled stretches in order; a single one if the whole graph has the same choice.

        Raises:
            TriuneError: `cpu` refuses a stretch, too.
            UnavailableError: the build was cancelled.
        """
        waiting = joined(stretches)
        while True:
            found: list[Compiled] = []
            for at, (stretch, piece) in enumerate(self._pieces(waiting)):
                compiled, why = self._compiled(stretch, piece)
                if compiled is None:
                    waiting = joined([*waiting[:at], *self._instead(stretch, piece, why), *waiting[at + 1 :]])
                    break
                found.append(compiled)
            else:
                return found

    def _pieces(self, stretches: Sequence[Stretch]) -> list[tuple[Stretch, Piece]]:
        pieces = split(self._graph.model, [each.begin for each in stretches[1:]])
        by_begin = {each.begin: each for each in stretches}
        return [(by_begin[piece.begin], piece) for piece in pieces]

    def _instead(self, stretch: Stretch, piece: Piece, why: str) -> Sequence[Stretch]:
        """The stretches that replace one that its unit refuses or computes wrongly: its halves, or the same stretch on
        another unit.
        """
        if stretch.depth >= MAX_DEPTH or len(piece.nodes) < 2:
            return [stretch.moved(why)]
        _log.info("model '%s': %s; its halves are tried", self._config.name, why)
        found: list[Stretch] = []
        for half in stretch.halves(piece.nodes[len(piece.nodes) // 2]):
            ends = [at for at in (half.begin, half.end) if 0 < at < len(self._graph.model.graph.node)]
            own = next((each for each in split(self._graph.model, ends) if each.begin == half.begin), None)
            compiled, cause = (None, "") if own is None else self._compiled(half, own)
            found += [half] if own is None or compiled is not None else self._instead(half, own, cause)
        return found

    def _compiled(self, stretch: Stretch, piece: Piece) -> tuple[Compiled | None, str]:
        """Compile a stretch for its first choice of unit and precision. Returns None, and the reason, if that is not
        possible.
        """
        choice, is_last = stretch.choice, len(stretch.choices) == 1
        key = (stretch.begin, stretch.end, choice)
        if (kept := self._kept.get(key)) is not None:
            return replace(kept, stretch=stretch, piece=piece), ""
        self._attempt.check()
        path = self._folder.save(piece)
        first = self._graph.model.graph.node[piece.nodes[0] if piece.nodes else piece.begin].name
        name = f"{len(piece.nodes)} operations from '{first}' on"
        with ExitStack() as undo:
            try:
                recipe = segment_recipe(piece, choice, self._num_threads, self._config, self._graph, self._machine)
                executable = compile_one(path, recipe, self._machine)
                undo.callback(executable.close)
                with self._attempt.holding(executable):
                    verdict, ms = self._measured(piece, executable)
            except TriuneError as error:
                refusal = without_path(error, path, name)
                if is_last or self._attempt.is_given_up:
                    raise refusal from error
                return None, f"{choice} refuses {name}: {refusal}"
            if verdict is not None and verdict.excess and not is_last:
                return None, f"{choice} ({executable.precision}) computes {name} wrongly: {verdict.excess}"
            undo.pop_all()
        self._kept[key] = Compiled(stretch, piece, executable, verdict, ms)
        return self._kept[key], ""

    def _measured(self, piece: Piece, executable: SharedExecutable) -> tuple[Verdict | None, float]:
        """Compare a piece's results with those of fp32 on `cpu`, for the same inputs, and measure its run time in
        milliseconds.
        """
        values = self._graph.values
        given = {spec.name: values[spec.name] for spec in executable.signature.inputs if spec.name in values}
        outputs = list(piece.outputs)
        found = executable.run(given, outputs)
        verdict = None
        if executable.unit is not Unit.CPU and not self._graph.is_random:
            tolerance = tolerance_of(self._config.parameters, executable.precision)
            known = {name: values[name] for name in outputs if name in values}
            verdict = compare(known, found, precision=executable.precision, tolerance=tolerance)
        times: list[float] = []
        begun = time.perf_counter()
        while len(times) < _NUM_RUNS and (not times or time.perf_counter() - begun < _MAX_SECONDS):
            started = time.perf_counter()
            executable.run(given, outputs)
            times.append(1e3 * (time.perf_counter() - started))
        return verdict, median(times)


def joined(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Join neighbouring stretches with the same choice into one stretch."""
    found: list[Stretch] = []
    for each in stretches:
        if found and found[-1].choice == each.choice:
            found[-1] = _join(found[-1], each)
        else:
            found.append(each)
    return found


def _join(one: Stretch, other: Stretch) -> Stretch:
    predicted = None
    if one.predicted_ms is not None and other.predicted_ms is not None and one.planned is other.planned:
        predicted = one.predicted_ms + other.predicted_ms
    return Stretch(
        one.begin,
        other.end,
        min(one.choices, other.choices, key=len),
        one.requested if one.requested is other.requested else None,
        one.planned,
        predicted,
        max(one.depth, other.depth),
        tuple(dict.fromkeys((*one.notes, *other.notes))),
    )
