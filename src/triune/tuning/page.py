"""A tuning as one page of HTML: no other file and no server is needed to read it."""

from triune.pages.page import page
from triune.tuning.report import Tuning, as_json


def page_of(tuning: Tuning) -> str:
    """Make the page of a tuning: a chart of throughput against p99 for all configurations, and a table of them."""
    return page("triune.tuning", "Tuning", as_json(tuning))
