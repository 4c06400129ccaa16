"""A tensor model that is compiled and warmed up, and does not answer requests yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from triune.backends.backend import Build
from triune.backends.gate.gate import describe_shortfall
from triune.backends.tensor.cut.cut import Cut
from triune.backends.tensor.executable import SharedExecutable
from triune.config.model_config import ModelConfig
from triune.core.placement import PlacedSegment, Placement
from triune.core.units import Unit
from triune.core.verdict import Verdict
from triune.scheduling.kept_costs import KeptCosts


@dataclass(frozen=True, slots=True)
class TensorBuild(Build):
    """A compiled and warmed-up tensor model.

    Attributes:
        executables: the executables, ordered by unit, then by instance.
        verdicts: how far the outputs of each unit except `cpu` differ from those of `cpu`, including units that are not
            used because of that.
        is_inline: whether the event loop's thread runs the model, as long as it is fast enough.
        duration_ns: how long the build took.
        cut: the segments, if the model is divided into segments; `executables` is empty then.
        kept: where the times of each executable's batches are stored; empty if they are not.
    """

    executables: tuple[SharedExecutable, ...]
    verdicts: Mapping[Unit, Verdict]
    is_inline: bool
    duration_ns: int
    cut: Cut | None = None
    kept: Sequence[KeptCosts] = ()

    @property
    def precisions(self) -> Mapping[Unit, str]:
        """The floating-point format on each unit."""
        return self.cut.precisions if self.cut is not None else {each.unit: each.precision for each in self.executables}

    @property
    def shortfall(self) -> str:
        """Why some units of the config are not used; "" if all are used."""
        return describe_shortfall(self.verdicts)

    def process_bytes(self) -> int:
        """The memory of its worker processes: see `Build.process_bytes`."""
        segments = [each.executable for each in self.cut.compiled] if self.cut is not None else ()
        return sum(each.process_bytes() for each in (*self.executables, *segments))

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
        segments = self.placement.segments if self.placement is not None else ()
        parts = [
            f"{'emulated ' if each.unit in self.emulated else ''}{each.unit.value} ({each.num_ops} operations, "
            f"{each.runtime}, {each.precision})"
            for each in segments
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


def placement_of(
    config: ModelConfig,
    executables: Sequence[SharedExecutable],
    verdicts: Mapping[Unit, Verdict],
    notes: Sequence[str],
) -> Placement:
    """The placement of a model that is not divided into segments: each of its units computes the whole model.

    Args:
        config: its configuration, with the units that passed the comparison.
        executables: its executables, which have run.
        verdicts: the comparison of each unit's outputs with the outputs of `cpu`.
        notes: whether the config's plan was followed, and if not, why.
    """
    first = {each.unit: each for each in reversed(executables)}
    plan, shortfall = config.plan, describe_shortfall(verdicts)
    rows = tuple(
        PlacedSegment(
            unit,
            first[unit].recipe.runtime,
            first[unit].precision,
            first[unit].report,
            requested=unit if plan is None else None,
            error=verdicts[unit].largest if unit in verdicts else None,
        )
        for unit in config.units
    )
    lost = [unit for unit, verdict in verdicts.items() if verdict.excess]
    requested = ",".join(unit.value for unit in (*config.units, *lost)) if plan is None else plan.text
    return Placement(requested, is_cut=False, segments=rows, notes=(*notes, *([shortfall] if shortfall else [])))
