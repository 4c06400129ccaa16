"""coremltools' own tests of MIL's operations pass with Triune, but for those that the ledger lists.

`python tests/conformance/coremltools_ops/run.py` runs them all and writes the ledger anew.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from support.ledger import Ledger

FOLDER = Path(__file__).parent
LEDGER = Ledger(FOLDER / "coremltools_ops.ledger")


@pytest.fixture(scope="module")
def runner() -> Any:
    sys.path.insert(0, str(FOLDER / "coremltools_ops"))
    try:
        return importlib.import_module("run")
    finally:
        sys.path.pop(0)


@pytest.mark.timeout(3600)
def test_operations_agree_with_coremltools(runner: Any, stride: int) -> None:
    # There are 16,000 cases: a fixed sample of them takes about a minute.
    results = runner.run(1 if stride == 1 else 5 * stride)
    failures = runner.failures_of(results)
    wrong: list[str] = []
    for each in results:
        if each.outcome not in ("passed", "failed"):
            continue
        try:
            LEDGER.judge(each.case, failures.get(each.case, ""))
        except AssertionError as error:
            wrong.append(str(error))
    assert not wrong, "\n".join(wrong)
    assert sum(1 for each in results if each.num_predictions) > 100
