"""A plan as one page of HTML: no other file and no server is needed to read it."""

import importlib.resources
import json
from collections.abc import Sequence

from triune.planning.as_json import as_json
from triune.planning.plan import Plan


def page_of(plans: Sequence[Plan]) -> str:
    """The page of some plans: their segments, coloured by unit, each of which a click opens to its operations."""
    return filled("triune.planning", "/*PLANS*/null", as_json(plans))


def filled(package: str, mark: str, content: object) -> str:
    """The file page.html of a package, with `content` as JSON in the place of `mark`, inside its script."""
    template = (importlib.resources.files(package) / "page.html").read_text(encoding="utf-8")
    # Names come from models: no tag may end the script that holds them.
    data = json.dumps(content, allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return template.replace(mark, data, 1)
