"""A tensor model that is compiled and warmed up, and does not answer requests yet."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from triune.backends.backend import Build
from triune.backends.tensor.executable import SharedExecutable
from triune.config.model_config import ModelConfig
from triune.config.parameters import TOLERANCE_PARAMETER
from triune.core.errors import UnsupportedError
from triune.core.units import Unit

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TensorBuild(Build):
    """A compiled and warmed-up tensor model.

    Attributes:
        executables: the executables, ordered by unit, then by instance.
        unit_errors: the largest difference from the cpu unit's outputs, for each other unit.
        is_inline: whether the event loop's thread runs the model, as long as it is fast enough.
        duration_ns: how long the build took.
        left_out: units of the config whose outputs differ too much from those of cpu, each with the reason.
    """

    executables: tuple[SharedExecutable, ...]
    unit_errors: dict[Unit, float]
    is_inline: bool
    duration_ns: int
    left_out: Mapping[Unit, str] = field(default_factory=dict[Unit, str])

    @property
    def precisions(self) -> Mapping[Unit, str]:
        """The floating-point format on each unit."""
        return {each.unit: each.precision for each in self.executables}

    @property
    def shortfall(self) -> str:
        """The reasons for the units in `left_out`; usually empty."""
        return "; ".join(
            f"not on {unit.value}: {describe_excess(unit, excess)}" for unit, excess in self.left_out.items()
        )

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
        if unit in self.unit_errors:
            words.append(f"error {self.unit_errors[unit]:.2g} against cpu")
        return f"{unit.value} ({', '.join(words)})"


def describe_excess(unit: Unit, excess: str) -> str:
    """The message that says why a model is not served on a unit, with the remedy."""
    return (
        f"its answers on '{unit.value}' are not those of 'cpu': {excess}; convert it in fp32, name other units, or "
        f"allow more by the parameter '{TOLERANCE_PARAMETER}'"
    )


def leave_out(
    left_out: Mapping[Unit, str], config: ModelConfig, executables: Sequence[SharedExecutable]
) -> tuple[ModelConfig, list[SharedExecutable]]:
    """Remove the units whose outputs are wrong from the config and the executables.

    Raises:
        UnsupportedError: no unit is left.
    """
    if not left_out:
        return config, list(executables)
    for unit, excess in left_out.items():
        _log.warning("model '%s' is not served on %s: %s", config.name, unit.value, describe_excess(unit, excess))
    units = tuple(unit for unit in config.units if unit not in left_out)
    if not units:
        reasons = "; ".join(describe_excess(unit, excess) for unit, excess in left_out.items())
        raise UnsupportedError(reasons)
    return replace(config, units=units), [each for each in executables if each.unit not in left_out]
