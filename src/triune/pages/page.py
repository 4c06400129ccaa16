"""A report as one page of HTML: no other file and no server is needed to read it."""

import importlib.resources
import json


def page(package: str, title: str, content: object) -> str:
    """A page with the frame, the colours and the functions that all reports share.

    Args:
        package: the package whose files `page.css` and `page.js` are the report's own style and script. The script
            finds `content` as `found`, and builds elements with `make` and `draw`.
        title: the page's title, until the script sets another.
        content: the values of the report, as JSON can express them; without NaN and infinities.
    """
    # The content is part of a script, and its names come from models: `<` is escaped, so that no name ends the script.
    data = json.dumps(content, allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    filled = _text(__package__ or "", "frame.html")
    for mark, text in (
        ("TITLE", title),
        ("/*STYLE*/", _text(__package__ or "", "shared.css") + _text(package, "page.css")),
        ("/*SCRIPT*/", _text(__package__ or "", "shared.js") + _text(package, "page.js")),
        # Replace this mark last: a name in the content may look like one of the marks above.
        ("/*FOUND*/null", data),
    ):
        filled = filled.replace(mark, text, 1)
    return filled


def _text(package: str, name: str) -> str:
    return (importlib.resources.files(package) / name).read_text(encoding="utf-8")
