"""Converts plans to values that JSON can express. The names are stable: new names may be added, but none changes its
meaning.
"""

import math
from collections.abc import Sequence
from typing import Any

from triune.planning.constants import Score
from triune.planning.measured import MeasuredTime
from triune.planning.plan import Plan, PlannedOp, Segment

KIND = "predicted"
"""The kind of every time and energy of a plan if `measured` is null."""


def as_json(plans: Sequence[Plan]) -> dict[str, Any]:
    """Convert plans to JSON, with times in milliseconds and energies in joules. All values outside `measured` are
    predictions.
    """
    return {"kind": KIND, "plans": [_plan(each) for each in plans]}


def _plan(plan: Plan) -> dict[str, Any]:
    core_ml = plan.core_ml
    return {
        "title": plan.title,
        "chip": plan.chip,
        "for": plan.goal.value,
        "ms": plan.ms,
        "measured": _measured(plan.measured),
        "joules": _known(plan.joules),
        "period_ms": plan.period_ms,
        "apart_per_second": plan.apart_per_second,
        "ms_error": _error(plan.latency_error),
        "joules_error": _error(plan.joules_error),
        "segments": [_segment(each) for each in plan.segments],
        "whole_model_on_one_unit": [
            {
                "unit": each.unit.value,
                "ms": each.ms,
                "predicted_ms": each.predicted_ms,
                "measured": _measured(each.measured),
                "joules": _known(each.joules),
                "num_refused": each.num_refused,
                "is_within_error": plan.is_close(each),
            }
            for each in plan.wholes
        ],
        "core_ml_cpu_and_ne": None
        if core_ml is None
        else {
            "units": [unit.value for unit in core_ml.units],
            "num_segments": core_ml.num_segments,
            "num_on_ane": core_ml.num_on_ane,
            "estimated_ms": core_ml.ms,
        },
        "faster": [{"what": each.what, "saves_ms": each.saves_ms, "source": each.source} for each in plan.advice],
        "notes": list(plan.notes),
    }


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "unit": segment.unit.value,
        "ms": segment.ms,
        "launch_ms": segment.launch_ms,
        "joules": _known(segment.joules),
        "why": segment.why,
        "ops": [_op(each) for each in segment.ops],
    }


def _op(op: PlannedOp) -> dict[str, Any]:
    return {
        "name": op.name,
        "op": op.op_type,
        "ms": op.ms,
        "joules": _known(op.joules),
        "bound": op.bound,
        "unit_ms": {unit.value: ms for unit, ms in op.unit_ms.items()},
        "refused": {
            unit.value: {
                "rule": each.rule.name,
                "reason": each.reason,
                "remedy": each.rule.remedy,
                "source": each.rule.source,
            }
            for unit, each in op.refusals.items()
        },
        "inputs": list(op.inputs),
    }


def _measured(time: MeasuredTime | None) -> dict[str, Any] | None:
    if time is None:
        return None
    return {"ms": time.ms, "joules": time.joules, "num_calls": time.num_calls, "source": time.source}


def _known(joules: float | None) -> float | None:
    """Replace NaN, by which plans say that an energy is unknown, by None."""
    return None if joules is None or math.isnan(joules) else joules


def _error(error: Score | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {
        "models": error.models,
        "group": error.group,
        "num_held_out": error.num_rows,
        "median": error.median,
        "nine_of_ten": error.ninth,
        "rank_correlation": error.rank,
    }
