"""A tensor model that is compiled and warmed up, and does not answer requests yet."""

from collections.abc import Mapping
from dataclasses import dataclass

from triune.backends.backend import Build
from triune.backends.gate.gate import describe_shortfall
from triune.backends.tensor.executable import SharedExecutable
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
    """

    executables: tuple[SharedExecutable, ...]
    verdicts: Mapping[Unit, Verdict]
    is_inline: bool
    duration_ns: int

    @property
    def precisions(self) -> Mapping[Unit, str]:
        """The floating-point format on each unit."""
        return {each.unit: each.precision for each in self.executables}

    @property
    def shortfall(self) -> str:
        """Why units of the config were left out; usually empty."""
        return describe_shortfall(self.verdicts)

    def close(self) -> None:
        """Free the executables."""
        for executable in self.executables:
            executable.close()

    def __str__(self) -> str:
        units = " and ".join(self._describe_unit(unit) for unit in self.config.units)
        return f"on {units} in {self.duration_ns / 1e9:.2f} s"

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
