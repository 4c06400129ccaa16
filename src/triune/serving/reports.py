"""The reports that a request can ask for: its energy, and where it was computed."""

import asyncio
from dataclasses import dataclass, replace

from triune.core.energy import Bill, report_of
from triune.core.errors import InvalidArgumentError
from triune.core.placement import Placement
from triune.core.requests import (
    ENERGY_PARAMETER,
    PLACEMENT_PARAMETER,
    UNIT_PARAMETER,
    InferenceRequest,
    InferenceResponse,
    Parameter,
)
from triune.core.servable import Call, Servable


@dataclass(frozen=True, slots=True)
class Reports:
    """The reports that a request asks for.

    Attributes:
        has_energy: whether it asks for its joules.
        has_placement: whether it asks where it is computed.
    """

    has_energy: bool
    has_placement: bool


def asked_reports(request: InferenceRequest) -> Reports | None:
    """The reports that a request's parameters ask for; None if there are none.

    Raises:
        InvalidArgumentError: one of the parameters is not true or false.
    """
    has_energy, has_placement = _asks(request, ENERGY_PARAMETER), _asks(request, PLACEMENT_PARAMETER)
    return Reports(has_energy, has_placement) if has_energy or has_placement else None


def _asks(request: InferenceRequest, parameter: str) -> bool:
    asked = request.parameters.get(parameter, False)
    if not isinstance(asked, bool):
        raise InvalidArgumentError(f"the request's parameter '{parameter}' must be true or false")
    return asked


def submit_with_reports(
    servable: Servable, call: Call, placement: Placement | None, asked: Reports
) -> asyncio.Future[InferenceResponse]:
    """Start a request whose response has the requested reports: see `Servable.submit` and `asked_reports`."""
    bill = call.bill = Bill()
    future = servable.submit(call)
    task = asyncio.ensure_future(_with_reports(future, bill, placement, asked))
    # Cancelling the task must cancel `future`, too. The callback does it, since a task that is cancelled before it
    # begins runs no code of its own.
    task.add_done_callback(lambda _: future.cancel())
    return task


async def _with_reports(
    future: asyncio.Future[InferenceResponse], bill: Bill, placement: Placement | None, asked: Reports
) -> InferenceResponse:
    """Await the response and add the reports that the request asked for: its joules, once the meter has counted them,
    and where it was computed. Cancelling it cancels `future`.

    Args:
        future: the response.
        bill: collects the request's joules and the units that computed it.
        placement: where the model computes; None if its backend does not report it.
        asked: the requested reports.
    """
    response = await future
    parameters: dict[str, Parameter] = dict(response.parameters)
    if asked.has_energy:
        report = await report_of([bill])
        parameters[ENERGY_PARAMETER] = report["kind"]
        for name, key in (("triune_joules", "joules"), ("triune_energy_reason", "reason")):
            if key in report:
                parameters[name] = report[key]
    if asked.has_placement:
        parameters[PLACEMENT_PARAMETER] = placement.requested if placement is not None else ""
        planned = placement.planned_units if placement is not None else ()
        parameters["triune_planned_units"] = ",".join(unit.value for unit in planned)
    if bill.units:
        most_first = sorted(bill.units, key=lambda unit: -bill.units[unit])
        parameters[UNIT_PARAMETER] = ",".join(unit.value for unit in most_first)
    return replace(response, parameters=parameters)
