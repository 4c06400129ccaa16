"""Every case of Triton's QA folders is taken over by a test, or the ledger says why not."""

import re
from pathlib import Path

from support.ledger import Ledger

HERE = Path(__file__).parent
KINDS = ("differs: ", "does not fit: ")


def taken() -> set[str]:
    """The cases that tests of this folder name."""
    sources = {path: path.read_text() for path in HERE.glob("test_*.py") if path != Path(__file__)}
    cases: set[str] = set()
    for text in sources.values():
        # A file may name the folder and file of its cases once, and then what is in them.
        prefixes = re.findall(r'"(L0_\w+/[\w.]+::)"', text)
        cases.update(re.findall(r'"(L0_\w+/[\w.]+::[^"]+)"', text))
        names = re.findall(r'"(test_\w+)"', text)
        cases.update(prefix + name for prefix in prefixes for name in names)
    return cases


def test_every_case_is_accounted_for() -> None:
    cases = (HERE / "cases.txt").read_text().splitlines()
    assert cases == sorted(set(cases))
    reasons = Ledger(HERE.with_suffix(".ledger")).reasons
    assert list(reasons) == sorted(reasons)
    assert [each for each in reasons if not reasons[each].startswith(KINDS)] == []
    assert set(reasons) - set(cases) == set()
    left_out = {case for case, reason in reasons.items() if reason.startswith("does not fit: ")}
    known = taken()
    assert left_out & known == set(), "what does not fit has no test"
    assert set(cases) - left_out - known == set(), "neither taken over nor in the ledger"
