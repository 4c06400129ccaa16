"""coremltools' own tests of MIL's operations pass with Triune, but for those that the ledger lists.

`python tests/conformance/coremltools_ops/run.py` runs them all and writes the ledger anew. What needs PyTorch is not
judged where that is not installed.
"""

import pytest

from conformance.coremltools_ops.run import IMPOSSIBLE, LEDGER_PATH, RAN, failures_of, run
from support.ledger import Ledger

LEDGER = Ledger(LEDGER_PATH)


@pytest.mark.timeout(4 * 3600)
def test_operations_agree_with_coremltools(stride: int) -> None:
    # There are 17,000 cases: a fixed sample of them takes about a minute.
    results = run(1 if stride == 1 else 2 * stride)
    failures = failures_of(results)
    LEDGER.judge_all((each.case, failures.get(each.case, "")) for each in results if each.outcome in RAN)
    # What could not pass when the ledger was written, and now could.
    ours = [each.case for each in results if each.outcome == "failed"]
    assert [case for case in ours if LEDGER.reasons[case].startswith(IMPOSSIBLE)] == []
    assert sum(1 for each in results if each.num_predictions) > 100
