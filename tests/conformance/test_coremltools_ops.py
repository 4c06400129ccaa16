"""coremltools' own tests of MIL's operations pass with Triune, but for those that the ledger lists.

`python tests/conformance/coremltools_ops/run.py` runs them all and writes the ledger anew. What needs PyTorch is not
judged where that is not installed, and what cannot pass is none of Triune's failures: see `coremltools_ops/trials.py`.
"""

import pytest

from conformance.coremltools_ops.run import LEDGER_PATH, failures_of, run
from support.ledger import Ledger

LEDGER = Ledger(LEDGER_PATH)


@pytest.mark.timeout(4 * 3600)
def test_operations_agree_with_coremltools(stride: int) -> None:
    # There are 17,000 cases: a fixed sample of them takes 20 s, half of it to import and collect.
    results = run() if stride == 1 else run(12 * stride, parts=1)
    failures = failures_of(results)
    LEDGER.judge_all(
        (each.case, failures.get(each.case, "")) for each in results if each.outcome in ("passed", "failed")
    )
    assert [each.case for each in results if each.outcome == "impossible" and each.case in LEDGER.reasons] == []
    assert sum(1 for each in results if each.num_predictions) > 40
