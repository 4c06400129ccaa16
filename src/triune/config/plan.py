"""The parameter `plan` of a config: how a model is divided into segments for several units."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.printable import cut
from triune.core.units import Unit
from triune.planning.plan import Goal
from triune.runtimes.machine import Machine

PLAN_PARAMETER: Final = "plan"
"""The config parameter that cuts a model into segments: a goal ("latency"), or the unit of each stretch of operations
("cpu to clip_40, amx").
"""

CHIP_PARAMETER: Final = "plan_chip"
"""The config parameter for the chip that the plan is made for; without it, this machine."""

_TO: Final = " to "
_SHOWN_CHARACTERS: Final = 200
_FORM: Final = (
    "write latency, throughput or energy; or the unit of each stretch of operations with the name of its last one, "
    "such as 'cpu to clip_40, amx', after 'throughput:' if segments are to run at the same time"
)


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """The plan that a config requests for a model.

    Attributes:
        text: the parameter as written.
        goal: the goal of the plan. In a plan for throughput, segments run at the same time, each on another batch.
        stretches: for each stretch of operations its unit, and the name of its last operation, which is None for the
            last stretch. If empty, the planner chooses.
        chip: the chip to plan for; None for this machine.
        units: the units that the planner may use; empty for all.
    """

    text: str
    goal: Goal = Goal.LATENCY
    stretches: tuple[tuple[Unit, str | None], ...] = ()
    chip: str | None = None
    units: tuple[Unit, ...] = ()

    @property
    def named_units(self) -> tuple[Unit, ...]:
        """The units of the stretches, each once, in order."""
        return tuple(dict.fromkeys(unit for unit, _ in self.stretches))


def parse_plan(text: str, *, chip: str | None = None, units: tuple[Unit, ...] = ()) -> PlanRequest:
    """Parse the value of the parameter `plan`.

    Raises:
        InvalidArgumentError: the text is not a valid plan. The message shows how to write one.
    """
    shown = cut(text, _SHOWN_CHARACTERS)
    goals = {goal.value: goal for goal in Goal}
    head, _, rest = text.partition(":")
    goal = goals.get(text.strip()) or goals.get(head.strip())
    if goal is not None and not (rest if ":" in text else "").strip():
        return PlanRequest(text, goal, chip=chip, units=units)
    listed = rest if goal is not None else text
    stretches = tuple(_stretch(each, shown) for each in listed.split(","))
    if any(last is None for _, last in stretches[:-1]) or stretches[-1][1] is not None:
        raise InvalidArgumentError(
            f"the plan {shown!r} must name the last operation of each stretch but the last, which has the rest; {_FORM}"
        )
    if goal is Goal.ENERGY:
        raise InvalidArgumentError(
            f"the plan {shown!r} names its stretches, so that nothing is left to choose for least energy; {_FORM}"
        )
    if chip is not None or units:
        what = (
            f"the chip '{cut(chip, _SHOWN_CHARACTERS)}'"
            if chip is not None
            else f"the units {', '.join(each.value for each in units)}"
        )
        raise InvalidArgumentError(
            f"the plan {shown!r} names the unit of each stretch, and {what} beside it: leave one of them out"
        )
    return PlanRequest(text, goal or Goal.LATENCY, stretches)


def read_plan(
    parameters: Mapping[str, str],
    backend: str,
    suffix: str,
    num_instances: int,
    units: tuple[Unit, ...],
    machine: Machine,
) -> PlanRequest | None:
    """Read a config's plan; None if it has none.

    Args:
        parameters: the config's parameters.
        backend: the model's backend.
        suffix: the suffix of the model file.
        num_instances: the number of executables that the config asks for on each unit.
        units: the units that the config names; empty if it names none.
        machine: the machine.

    Raises:
        InvalidArgumentError: the plan cannot be read.
        UnsupportedError: this machine lacks a unit of the plan, or such a model cannot be divided into segments.
    """
    text, chip = parameters.get(PLAN_PARAMETER), parameters.get(CHIP_PARAMETER)
    if text is None:
        if chip is not None:
            raise InvalidArgumentError(
                f"parameter '{CHIP_PARAMETER}' is {cut(chip, _SHOWN_CHARACTERS)!r}, and there is no '{PLAN_PARAMETER}'"
            )
        return None
    request = parse_plan(text, chip=chip, units=units)
    if suffix != ".onnx":
        raise UnsupportedError(
            f"a model is cut in ONNX, and this one is a {suffix or 'folder'}: convert it with `triune convert`, or "
            f"remove the parameter '{PLAN_PARAMETER}'"
        )
    if num_instances != 1:
        raise UnsupportedError(
            f"instance_group asks for {num_instances} instances of a model with a plan, which is for one: give count: 1"
        )
    for unit in request.named_units:
        machine.runtime_for(backend, unit, f" in parameter '{PLAN_PARAMETER}'")
    return request


def _stretch(text: str, shown: str) -> tuple[Unit, str | None]:
    word, to, last = text.strip().partition(_TO)
    try:
        unit = Unit(word.strip())
    except ValueError:
        known = ", ".join(each.value for each in Unit)
        word = cut(word.strip(), _SHOWN_CHARACTERS)
        raise InvalidArgumentError(f"the plan {shown!r}: {word!r} is not a unit ({known}) or goal; {_FORM}") from None
    if to and not last.strip():
        raise InvalidArgumentError(f"the plan {shown!r}: an operation is missing after 'to'; {_FORM}")
    return unit, last.strip() if to else None
