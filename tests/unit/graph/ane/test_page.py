"""docs/ane-layout.md runs as it stands."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[4] / "docs" / "ane-layout.md"


def test_the_pages_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    exec(block, {})
    assert capsys.readouterr().out == "changed: linear_to_conv 1, layout 1\n"
