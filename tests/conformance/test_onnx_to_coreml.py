"""ONNX's node tests converted to Core ML and computed by Triune's executors: the right answers, or a reason.

A Core ML program has no shapes that its inputs decide by value. Where a case's inputs do (the axes of a reduction, the
sizes of a split), and the conversion refuses it so, those inputs are bound to their values, as `--constant` does.

`python tests/conformance/test_onnx_to_coreml.py` writes the ledger anew after a whole run. Its reasons begin with what
happened: `unsupported` (refused, with the reason), `wrong` (another answer), `error` (anything else).
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.ledger import Ledger
from support.onnx_cases import Case, difference, load_cases
from triune.core.errors import TriuneError, UnsupportedError
from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering import Lowered, LowerOptions, lower
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import read_package
from triune.graph.passes.narrow import narrow_array

LEDGER = Ledger(Path(__file__).with_name("onnx_to_coreml.ledger"))
HEAD = """ONNX node tests that do not become a right ML Program: unsupported (refused), wrong, or another error."""

DECIDING = {
    **dict.fromkeys(["Reshape", "Expand", "Tile", "Squeeze", "Unsqueeze", "Split", "TopK", "Trilu"], (1,)),
    **dict.fromkeys(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"], (1,)),
    **dict.fromkeys(["ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"], (1,)),
    **dict.fromkeys(["OneHot", "CumSum", "CumProd", "CenterCropPad", "AffineGrid", "SplitToSequence"], (1,)),
    "Loop": (0, 1),
    **dict.fromkeys(["ConstantOfShape", "HannWindow", "HammingWindow", "BlackmanWindow"], (0,)),
    "Slice": (1, 2, 3, 4),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "NonMaxSuppression": (2, 3, 4),
    "DFT": (1, 2),
    "STFT": (1, 3),
    "Col2Im": (1, 2),
    "MaxUnpool": (2,),
    "Dropout": (1, 2),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
}
"""The operands whose values decide shapes or what is computed."""


@dataclass(frozen=True)
class Result:
    """What came of a case.

    Attributes:
        failure: nothing, or the category and the reason.
        num_bound: how many inputs had to be bound to their values.
    """

    failure: str
    num_bound: int = 0


def result_of(case: Case, folder: Path) -> Result:
    bound: dict[str, Any] = {}
    try:
        try:
            lowered = lower(case.model, folder / "case.mlpackage")
        except UnsupportedError:
            bound = _deciding_inputs(case)
            if not bound:
                raise
            lowered = lower(case.model, folder / "case.mlpackage", LowerOptions(constants=bound))
    except UnsupportedError as error:
        return Result(f"unsupported: {_first_reason(str(error))}")
    except TriuneError as error:
        return Result(f"error: {error}")
    for executor in (OnnxExecutor, Interpreter):
        try:
            failure = _run(case, lowered, executor)
        except Exception as error:
            failure = f"error: {executor.__name__}: {type(error).__name__}: {error}"
        if failure:
            return Result(failure, len(bound))
    return Result("", len(bound))


def _deciding_inputs(case: Case) -> dict[str, Any]:
    # The body of a function has the inputs of the function's own case.
    whole = {each.name: each for each in load_cases()}.get(case.name.partition("_expanded")[0], case)
    names = {
        node.input[index]
        for node in whole.model.graph.node
        for index in DECIDING.get(node.op_type, ())
        if index < len(node.input)
    }
    return {name: array for name, array in case.sets[0][0].items() if name in names}


def _first_reason(message: str) -> str:
    lines = message.splitlines()
    return lines[1].strip() if len(lines) > 1 else message


def _run(case: Case, lowered: Lowered, executor: Any) -> str:
    runner = executor(read_package(lowered.path))
    for feeds, expected in case.sets:
        inputs = {lowered.inputs[name]: _given(name, array) for name, array in feeds.items() if name in lowered.inputs}
        results, _ = runner.run(inputs, {})
        for value, right in zip(case.model.graph.output, expected, strict=True):
            right = np.asarray(right)
            actual = results[lowered.outputs[value.name]]
            if right.shape == () and actual.shape == (1,):
                actual = actual.reshape(())
            # A narrow model gives narrow results; their values are the same.
            actual = actual.astype(right.dtype)
            if case.is_random:
                actual = right if actual.shape == right.shape else actual
            # In fp16, whose steps are 1e-3 below 2, which steps are rounded is the runtime's choice.
            atol = 1e-3 if right.dtype == np.float16 else 1e-5
            if found := difference(actual, right, rtol=max(case.rtol, 1e-3), atol=max(case.atol, atol)):
                return f"wrong: {executor.__name__}: output '{value.name}' {found}"
    return ""


def _given(name: str, array: Any) -> Any:
    """As the package takes it: whole numbers and truths as int32, no scalars."""
    narrow = narrow_array(name, np.asarray(array))
    narrow = narrow.astype(np.int32) if narrow.dtype == np.bool_ else narrow
    return narrow.reshape(1) if narrow.ndim == 0 else narrow


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(1800)
def test_converted_nodes_compute_the_same(stride: int, tmp_path: Path) -> None:
    cases = [case for case in load_cases() if case.is_eligible][:: stride * 2 if stride > 1 else 1]
    LEDGER.judge_all((case.name, result_of(case, tmp_path).failure) for case in cases)
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
            result = result_of(case, Path(folder))
            if result.failure:
                failures[case.name] = result.failure
                if wanted:
                    print(f"{case.name}: {result.failure}")
            num_bound += bool(result.num_bound and not result.failure)
            if number % 100 == 0:
                print(f"{number} of {len(chosen)}, {len(failures)} fail", flush=True)
    if not wanted:
        LEDGER.write(failures, HEAD)
    print(f"{len(chosen) - len(failures)} of {len(chosen)} pass, {num_bound} of them with inputs bound to their values")


if __name__ == "__main__":
    main()
