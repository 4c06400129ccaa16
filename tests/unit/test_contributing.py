"""CONTRIBUTING.md leads to files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = (ROOT / "src" / "triune", ROOT, ROOT / "tests")


def paths_in(text: str) -> set[str]:
    """What stands in backticks and looks like the path of a file or folder of the project."""
    named = set(re.findall(r"`([A-Za-z_./*]+)`", text))
    return {each for each in named if re.search(r"/|\.(py|md|toml|yaml)$", each) and "NAME" not in each and each != "/"}


@pytest.mark.parametrize("page", ["CONTRIBUTING.md"])
def test_every_path_that_a_page_names_exists(page: str) -> None:
    missing = [
        path
        for path in sorted(paths_in((ROOT / page).read_text()))
        if not any(next(place.glob(path.rstrip("/")), None) for place in PLACES)
    ]
    assert not missing
