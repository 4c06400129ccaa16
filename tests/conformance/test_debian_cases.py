"""The cases of Debian's libonnx-testdata (ONNX 1.12: operator sets 1 to 17, whole models of PyTorch) to core ops.

Where the package is not installed (`apt-get install libonnx-testdata`) there is nothing to run.
`python -m conformance.test_debian_cases`, in `tests/`, writes the ledger anew after a whole run.
"""

from pathlib import Path

import pytest

from conformance.test_normalize import failure_of
from support.ledger import Ledger
from support.onnx_cases import DEBIAN, Case, load_debian_cases

LEDGER = Ledger(Path(__file__).with_name("debian_cases.ledger"))
HEAD = """Cases of libonnx-testdata 1.12 that do not come to core ops that compute the same."""


def eligible() -> list[Case]:
    return [case for case in load_debian_cases() if case.sets and case.is_eligible]


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's libonnx-testdata is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(600)
def test_older_models_compute_the_same_with_core_ops(stride: int) -> None:
    cases = eligible()[::stride]
    LEDGER.judge_all((case.name, failure_of(case)) for case in cases)
    assert len(cases) > 50


if __name__ == "__main__":
    failures = {case.name: failure for case in eligible() if (failure := failure_of(case))}
    LEDGER.write(failures, HEAD)
    print(f"{len(eligible()) - len(failures)} of {len(eligible())} pass")
