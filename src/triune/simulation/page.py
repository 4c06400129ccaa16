"""A simulation as one page of HTML: no other file and no server is needed to read it."""

from triune.pages.page import page
from triune.simulation.report import Simulation, as_json


def page_of(simulation: Simulation) -> str:
    """Make the page of a simulation: it shows the schedules side by side, and how long each unit computed each
    model.
    """
    return page("triune.simulation", "Simulation", as_json(simulation))
