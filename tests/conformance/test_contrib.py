"""Operators of ONNX Runtime (com.microsoft) and of classical learning (ai.onnx.ml) in both of Apple's forms.

Each case is one operator in one variant of its attributes and optional inputs. It is converted to an ML Program, which
both executors compute, and to a Core AI asset, which Apple's interpreter computes; ONNX Runtime's answers are right.
`python tests/conformance/test_contrib.py` writes the ledger anew after a whole run and prints the counts; with words it
runs the cases whose names hold one of them.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from conformance.test_onnx_to_coreml import given
from support.apple_interpreter import Apart, interpret
from support.contrib import CASES
from support.contrib.case import Case, difference
from support.ledger import Ledger
from triune.core.errors import TriuneError, UnsupportedError
from triune.coreai.lowering import lower as lower_coreai
from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering import lower as lower_coreml
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import read_package
from triune.graph.passes.narrow_values import narrow_array

LEDGER = Ledger(Path(__file__).with_name("contrib.ledger"))
HEAD = "Variants of contrib and ML operators that are refused (unsupported), wrong, or end in another error, by form."
FORMS = ("coreml", "coreai")


def failure_of(case: Case, form: str, folder: Path) -> str:
    """Nothing, or what happened and why."""
    expected = {} if case.reason else case.expected()
    model = case.model(None if case.reason else {name: right.shape for name, right in expected.items()})
    feeds = {name: narrow_array(name, array) for name, array in case.feeds().items()}
    try:
        answers = (_in_coreml if form == "coreml" else _in_coreai)(model, feeds, folder)
    except UnsupportedError as error:
        reason = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        return f"unsupported: {reason.partition(': ')[2] or reason}"
    except TriuneError as error:
        return f"error: {error}"
    for runner, results in answers.items():
        for name, right in expected.items():
            if name in results and (found := difference(case, name, results[name].reshape(right.shape), right)):
                return f"wrong: {runner}: {found}"
            if name not in results and right.dtype.kind != "U":
                return f"wrong: {runner}: output '{name}' is missing"
    return ""


def _in_coreml(model: ModelProto, feeds: dict[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    lowered = lower_coreml(model, folder / "case.mlpackage")
    package = read_package(lowered.path)
    inputs = {lowered.inputs[name]: given(array) for name, array in feeds.items() if name in lowered.inputs}
    found: dict[str, dict[str, Any]] = {}
    for executor in (OnnxExecutor, Interpreter):
        results, _ = executor(package).run(inputs, {})
        found[executor.__name__] = {name: results[other] for name, other in lowered.outputs.items()}
    return found


def _in_coreai(model: ModelProto, feeds: dict[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    lowered = lower_coreai(model, folder / "case.aimodel")
    return {"Core AI": interpret(lowered.path, feeds)}


def result(argument: tuple[str, str]) -> str:
    """For a process of its own, which Apple's library may end: what comes of the case of that name in that form."""
    name, form = argument
    case = next(each for each in CASES if each.name == name)
    with tempfile.TemporaryDirectory() as folder:
        return failure_of(case, form, Path(folder))


def failures(cases: Sequence[Case]) -> dict[str, str]:
    """By form and case, all of them."""
    apart = Apart(result)
    found: dict[str, str] = {}
    for form in FORMS:
        for case in cases:
            try:
                found[f"{form} {case.name}"] = apart((case.name, form))
            except Exception as error:
                found[f"{form} {case.name}"] = f"error: {error}"
    return found


@pytest.mark.timeout(1800)
def test_both_forms_answer_as_onnx_runtime_does(stride: int) -> None:
    cases = CASES[:: stride * 3 if stride > 1 else 1]
    LEDGER.judge_all(failures(cases).items())
    assert len(cases) > 3


def test_no_answer_is_wrong() -> None:
    assert [case for case, reason in LEDGER.reasons.items() if not reason.startswith("unsupported")] == []


def main() -> None:
    """Run all, or the cases whose names hold one of the arguments; only a whole run writes the ledger."""
    wanted = sys.argv[1:]
    cases = [case for case in CASES if not wanted or any(each in case.name for each in wanted)]
    found = failures(cases)
    failed = {name: failure for name, failure in found.items() if failure}
    if wanted:
        print("\n".join(f"{name}: {failure}" for name, failure in failed.items()))
    else:
        LEDGER.write(failed, HEAD)
    domains = {case.name: case.domain for case in cases}
    counts: Counter[tuple[str, str]] = Counter()
    rights: Counter[tuple[str, str]] = Counter()
    for name, failure in found.items():
        form, _, case = name.partition(" ")
        counts[domains[case], form] += 1
        rights[domains[case], form] += not failure
    for (domain, form), count in counts.items():
        print(f"{domain} in {form}: {rights[domain, form]} of {count} variants right")


if __name__ == "__main__":
    main()
