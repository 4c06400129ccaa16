"""A tensor model that is compiled and warmed up, and does not answer requests yet."""

from collections.abc import Mapping
from dataclasses import dataclass

from triune.backends.backend import Build
from triune.backends.gate.gate import describe_shortfall
from triune.backends.tensor.cut.cut import Cut
from triune.backends.tensor.executable import SharedExecutable
from triune.core.placement import PlacedSegment, Placement
from triune.core.units import Unit
from triune.core.verdict import Verdict


@dataclass(frozen=True, slots=True)
class TensorBuild(Build):
    """A compiled and warmed-up tensor model.

    Attributes:
        executables: the executables, ordered by unit, then by instance.
        verdicts: how far the outputs of each other unit are from those of cpu, also of units that were left out.
        is_inline: whether the event loop's thread runs the model, as long as it is fast enough.
        duration_ns: how long the build took.
        cut: the segments of a model that is cut; `executables` is empty then.
        placed: where the segments of a cut are.
        notes: what became of the config's plan.
    """

    executables: tuple[SharedExecutable, ...]
    verdicts: Mapping[Unit, Verdict]
    is_inline: bool
    duration_ns: int
    cut: Cut | None = None
    placed: tuple[PlacedSegment, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def precisions(self) -> Mapping[Unit, str]:
        """The floating-point format on each unit."""
        return self.cut.precisions if self.cut is not None else {each.unit: each.precision for each in self.executables}

    @property
    def placement(self) -> Placement:
        """Where the model computes, beside what its config asks for."""
        plan = self.config.plan
        if self.cut is not None and plan is not None:
            return Placement(plan.text, is_cut=True, segments=self.placed, notes=self.notes)
        first = {each.unit: each for each in reversed(self.executables)}
        rows = tuple(
            PlacedSegment(
                unit,
                first[unit].recipe.runtime,
                first[unit].precision,
                requested=unit if plan is None else None,
                error=None if (verdict := self.verdicts.get(unit)) is None else verdict.largest,
            )
            for unit in self.config.units
        )
        requested = plan.text if plan is not None else ",".join(unit.value for unit in self.config.units)
        notes = (*self.notes, *([self.shortfall] if self.shortfall else []))
        return Placement(requested, is_cut=False, segments=rows, notes=notes)

    @property
    def shortfall(self) -> str:
        """Why units of the config were left out; usually empty."""
        return describe_shortfall(self.verdicts)

    def close(self) -> None:
        """Free the executables."""
        for executable in self.executables:
            executable.close()
        if self.cut is not None:
            self.cut.close()

    def __str__(self) -> str:
        if self.cut is not None:
            return f"{self._describe_cut()} in {self.duration_ns / 1e9:.2f} s"
        units = " and ".join(self._describe_unit(unit) for unit in self.config.units)
        return f"on {units} in {self.duration_ns / 1e9:.2f} s"

    def _describe_cut(self) -> str:
        parts = [
            f"{'emulated ' if each.unit in self.emulated else ''}{each.unit.value} ({each.num_ops} operations, "
            f"{each.runtime}, {each.precision})"
            for each in self.placed
        ]
        error = max((each.largest for each in self.verdicts.values()), default=None)
        shown = "" if error is None else f", error {error:.2g} against cpu"
        return f"cut into {len(parts)} segments on {', '.join(parts)}{shown}"

    def _describe_unit(self, unit: Unit) -> str:
        mine = [each for each in self.executables if each.unit is unit]
        recipe = mine[0].recipe
        threads = f"{recipe.num_threads} thread{'s' if recipe.num_threads > 1 else ''}"
        words = [recipe.runtime, mine[0].precision, f"{len(mine)} x {threads}" if len(mine) > 1 else threads]
        if unit in self.emulated:
            words.insert(0, "emulated")
        if self.is_inline:
            words.append("inline")
        if mine[0].is_hosted:
            words.append("own process")
        if unit in self.verdicts:
            words.append(f"error {self.verdicts[unit].largest:.2g} against cpu")
        return f"{unit.value} ({', '.join(words)})"
