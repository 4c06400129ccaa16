"""coremltools' own tests of MIL's operations pass with Triune, but for those that the ledger lists.

`python tests/conformance/coremltools_ops/run.py` runs them all and writes the ledger anew.
"""

import pytest

from conformance.coremltools_ops.run import LEDGER_PATH, failures_of, run
from support.ledger import Ledger

LEDGER = Ledger(LEDGER_PATH)


@pytest.mark.timeout(7200)
def test_operations_agree_with_coremltools(stride: int) -> None:
    # There are 17,000 cases: a fixed sample of them takes about a minute.
    results = run(1 if stride == 1 else 2 * stride)
    failures = failures_of(results)
    judged = [each.case for each in results if each.outcome in ("passed", "failed")]
    LEDGER.judge_all((case, failures.get(case, "")) for case in judged)
    assert sum(1 for each in results if each.num_predictions) > 100
