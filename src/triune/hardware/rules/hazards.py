"""Causes of wrong results in fp16 or bf16 on a unit: reads the hazards in `hazards.toml`, and tests values by them.

A rule (`rules`) describes operations that a unit refuses. A hazard describes values for which a unit computes wrong
results.
"""

import functools
import importlib.resources
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from triune.core.errors import InternalError
from triune.core.units import Unit
from triune.hardware.rules import NEWEST_TIER


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The properties of an operation and of its values, computed in fp32, that hazards test.

    Attributes:
        op: ONNX's operator.
        result: the largest finite magnitude of its results.
        operand: the largest finite magnitude of its operands, constants included.
        num_terms: the number of elements that a reduction combines for each result; 0 for other operators.
        is_moved: whether it slices the last axis with a start other than 0.
        is_whole: whether all results are integers.
        has_nan: whether an operand or a result contains NaN.
        has_zero: whether an operand contains 0.
    """

    op: str
    result: float = 0.0
    operand: float = 0.0
    num_terms: int = 0
    is_moved: bool = False
    is_whole: bool = False
    has_nan: bool = False
    has_zero: bool = False


@dataclass(frozen=True, slots=True)
class Hazard:
    """A condition under which a unit computes wrong results.

    Attributes:
        name: the hazard's name in messages.
        unit: the unit that has the hazard; None if every unit has it that computes in one of `precisions`.
        precisions: the precisions in which it occurs.
        ops: ONNX's operators; "*" stands for all.
        when: the condition, a key of `CONDITIONS`.
        limit: the largest value that is computed correctly; 0 if the condition compares no value.
        first_tier: the oldest tier of the Neural Engine that has it.
        last_tier: the newest tier that has it.
        reason: what goes wrong, with the placeholders {op} and {size}.
        source: the publication or test that observed this.
    """

    name: str
    unit: Unit | None
    precisions: frozenset[str]
    ops: frozenset[str]
    when: str
    limit: float
    first_tier: int
    last_tier: int
    reason: str
    source: str

    def explains(self, observed: Observed, unit: Unit, precision: str, tier: int = NEWEST_TIER) -> str:
        """Why the results of an operation are wrong on `unit` in `precision`; empty if this hazard is not the
        reason.
        """
        if self.unit not in (None, unit) or precision not in self.precisions:
            return ""
        if not self.first_tier <= tier <= self.last_tier or not ("*" in self.ops or observed.op in self.ops):
            return ""
        size = CONDITIONS[self.when](observed, self.limit)
        return self.reason.format(op=observed.op, size=f"{size:.6g}") if size else ""


def explanation(observed: Observed, unit: Unit, precision: str, tier: int = NEWEST_TIER) -> str:
    """Why the results of an operation are wrong on a unit, with the source; empty if no hazard is the reason."""
    for hazard in hazards():
        if reason := hazard.explains(observed, unit, precision, tier):
            return f"{reason} ({hazard.source})"
    return ""


@functools.cache
def hazards() -> tuple[Hazard, ...]:
    """All hazards, in the order of the file."""
    file = importlib.resources.files("triune.hardware.rules") / "hazards.toml"
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    return tuple(_hazard(each, content["sources"]) for each in content["hazard"])


def _hazard(table: Mapping[str, Any], sources: Mapping[str, str]) -> Hazard:
    if table["when"] not in CONDITIONS:
        raise InternalError(f"hazard '{table['name']}': there is no condition '{table['when']}'")
    return Hazard(
        name=table["name"],
        unit=None if table["unit"] == "*" else Unit(table["unit"]),
        precisions=frozenset(table["precisions"]),
        ops=frozenset(table["ops"]),
        when=table["when"],
        limit=table.get("limit", 0.0),
        first_tier=table.get("from", 1),
        last_tier=table.get("until", NEWEST_TIER),
        reason=table["reason"],
        source=sources[table["source"]],
    )


def _over(value: float, limit: float) -> float:
    return value if value > limit else 0.0


def _cancellation(observed: Observed, limit: float) -> float:
    """The ratio of the largest operand to the result if it exceeds the limit, else 0."""
    if not observed.operand:
        return 0.0
    return _over(observed.operand / observed.result if observed.result else math.inf, limit)


CONDITIONS: Final[Mapping[str, Callable[[Observed, float], float]]] = {
    "result": lambda observed, limit: _over(observed.result, limit),
    "operand": lambda observed, limit: _over(observed.operand, limit),
    "moved_operand": lambda observed, limit: _over(observed.operand, limit) if observed.is_moved else 0.0,
    "terms": lambda observed, limit: _over(observed.num_terms, limit),
    "whole_result": lambda observed, limit: _over(observed.result, limit) if observed.is_whole else 0.0,
    "cancellation": _cancellation,
    "nan": lambda observed, limit: float(observed.has_nan),
    "zero_operand": lambda observed, limit: float(observed.has_zero),
}
"""The conditions of hazards. Each takes the properties of an operation and a limit. It returns the value that exceeds
the limit, or 1 for a condition without a limit; 0 if the condition does not hold.
"""
