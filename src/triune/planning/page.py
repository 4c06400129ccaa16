"""A plan as one page of HTML: no other file and no server is needed to read it."""

from collections.abc import Sequence

from triune.pages.page import page
from triune.planning.as_json import as_json
from triune.planning.plan import Plan


def page_of(plans: Sequence[Plan]) -> str:
    """Make a page that shows the segments of plans, coloured by unit. A click on a segment shows its operations."""
    return page("triune.planning", "Plan", as_json(plans))
