"""A tuning as one page of HTML: no other file and no server is needed to read it."""

from triune.planning.page import filled
from triune.tuning.report import Tuning, as_json


def page_of(tuning: Tuning) -> str:
    """The page of a tuning: throughput against p99 of all configurations, and a table of them."""
    return filled("triune.tuning", "/*TUNING*/null", as_json(tuning))
