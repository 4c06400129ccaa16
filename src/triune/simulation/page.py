"""A simulation as one page of HTML: no other file and no server is needed to read it."""

import importlib.resources
import json

from triune.simulation.report import Simulation, as_json

_DATA = "/*SIMULATION*/null"


def page_of(simulation: Simulation) -> str:
    """The page of a simulation: schedules beside each other, and what each unit did for each model."""
    template = (importlib.resources.files("triune.simulation") / "page.html").read_text(encoding="utf-8")
    # Names come from models: no tag may end the script that holds them.
    data = json.dumps(as_json(simulation), allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return template.replace(_DATA, data, 1)
