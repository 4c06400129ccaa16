"""ONNX's node tests converted to Core ML and computed by Triune's executors: the right answers, or a reason.

`python tests/conformance/test_onnx_to_coreml.py` writes the ledger anew after a whole run.
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from support.converted_cases import Result, Runner, result_of
from support.ledger import Ledger
from support.onnx_cases import Case, load_cases
from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering import LowerOptions, lower
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import read_package

LEDGER = Ledger(Path(__file__).with_name("onnx_to_coreml.ledger"))
HEAD = """ONNX node tests that do not become a right ML Program: unsupported (refused), wrong, or another error."""


def result(case: Case, folder: Path) -> Result:
    return result_of(case, lambda model, constants: _convert(model, constants, folder))


def _convert(model: ModelProto, constants: Mapping[str, Any], folder: Path) -> list[Runner]:
    lowered = lower(model, folder / "case.mlpackage", LowerOptions(constants=constants))
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.output}

    def runner(executor: Any) -> Runner:
        return Runner(executor.__name__, lambda inputs: _run(executor, inputs))

    def _run(executor: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        feeds = {lowered.inputs[name]: given(array) for name, array in inputs.items() if name in lowered.inputs}
        results, _ = executor(read_package(lowered.path)).run(feeds, {})
        found = {name: results[other] for name, other in lowered.outputs.items()}
        # Core ML has no scalars.
        return {
            name: each.reshape(()) if each.shape == (1,) and not ranks[name] else each for name, each in found.items()
        }

    return [runner(OnnxExecutor), runner(Interpreter)]


def given(narrow: Any) -> Any:
    """As the package takes it: truths as int32, no scalars."""
    narrow = narrow.astype(np.int32) if narrow.dtype == np.bool_ else narrow
    return narrow.reshape(1) if narrow.ndim == 0 else narrow


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(1800)
def test_converted_nodes_compute_the_same(stride: int, tmp_path: Path) -> None:
    cases = [case for case in load_cases() if case.is_eligible][:: stride * 2 if stride > 1 else 1]
    LEDGER.judge_all((case.name, result(case, tmp_path).failure) for case in cases)
    assert len(cases) > 60


def test_no_answer_is_wrong() -> None:
    assert [case for case, reason in LEDGER.reasons.items() if reason.startswith("wrong")] == []


def main() -> None:
    """Run all, or the cases whose names hold one of the arguments; only a whole run writes the ledger."""
    wanted = sys.argv[1:]
    eligible = [case for case in load_cases() if case.is_eligible]
    chosen = [case for case in eligible if not wanted or any(each in case.name for each in wanted)]
    failures: dict[str, str] = {}
    num_bound = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(chosen, start=1):
            found = result(case, Path(folder))
            if found.failure:
                failures[case.name] = found.failure
                if wanted:
                    print(f"{case.name}: {found.failure}")
            num_bound += bool(found.num_bound and not found.failure)
            if number % 100 == 0:
                print(f"{number} of {len(chosen)}, {len(failures)} fail", flush=True)
    if not wanted:
        LEDGER.write(failures, HEAD)
    print(f"{len(chosen) - len(failures)} of {len(chosen)} pass, {num_bound} of them with inputs bound to their values")


if __name__ == "__main__":
    main()
