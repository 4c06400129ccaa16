"""CONTRIBUTING.md names files that are there, and headings that it has."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
NOT_FILES = {"src/triune/runtimes/NAME/runtime.py", "src/triune/zoo/NAME.py"}


def test_every_path_is_there() -> None:
    named = {each for each in re.findall(r"`([\w./-]+)`", PAGE) if each.endswith((".py", "/", ".md", ".toml"))}
    missing = [
        each
        for each in sorted(named - NOT_FILES)
        if not any((folder / each).exists() for folder in (ROOT, ROOT / "src/triune", ROOT / "tests"))
    ]
    assert len(named) > 30
    assert missing == []


def test_every_link_within_the_page_has_its_heading() -> None:
    headings = {
        re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    }
    links = set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    assert links
    assert links <= headings
