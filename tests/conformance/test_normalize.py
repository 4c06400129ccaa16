"""ONNX's node tests, normalized and narrowed: the same answers of core ops alone.

Where the values of inputs decide shapes, and a case cannot be brought to core ops so, those inputs are bound to them.

`python tests/conformance/test_normalize.py` writes the ledger anew after a whole run.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator

from support.converted_cases import deciding_inputs
from support.ledger import Ledger
from support.onnx_cases import Case, difference, load_cases
from triune.core.errors import TriuneError
from triune.graph.conversion.constants import bind_constants, typed_constants
from triune.graph.normalize import foreign_ops, normalize
from triune.graph.passes.narrow import Narrow
from triune.graph.passes.narrow_values import narrow_array

LEDGER = Ledger(Path(__file__).with_name("normalize.ledger"))
HEAD = """ONNX node tests that cannot be brought to core ops, or whose core ops no runtime here computes right."""


def failure_of(case: Case) -> str:
    try:
        model = normalize(case.model)
        if foreign_ops(model):
            model = normalize(_bound(case))
        if foreign := foreign_ops(model):
            return f"left: {', '.join(foreign)}"
        failure = _compare(case, model, narrow=False)
        return failure or _compare(case, Narrow()(model), narrow=True)
    except TriuneError as error:
        return str(error)


def _bound(case: Case) -> ModelProto:
    """The case's model with the inputs that decide shapes bound to their values."""
    model = ModelProto()
    model.CopyFrom(case.model)
    bind_constants(model, typed_constants(model, deciding_inputs(case)))
    return model


def _compare(case: Case, model: ModelProto, *, narrow: bool) -> str:
    for feeds, expected in case.sets:
        wanted = {value.name for value in model.graph.input}
        given = {name: array for name, array in feeds.items() if name in wanted}
        inputs = {name: narrow_array(name, array) if narrow else array for name, array in given.items()}
        results = _run(model, inputs)
        if isinstance(results, str):
            return results
        for actual, right in zip(results, expected, strict=True):
            # A narrow model gives narrow results; their values are the same.
            given = np.asarray(actual).astype(np.asarray(right).dtype) if narrow else actual
            if case.is_random:
                given = right if np.shape(actual) == np.shape(right) else given
            if found := difference(given, right, rtol=case.rtol, atol=case.atol):
                return f"{'narrowed: ' if narrow else ''}{found}"
    return ""


def _run(model: ModelProto, inputs: dict[str, Any]) -> list[Any] | str:
    """By ONNX Runtime; by ONNX's evaluator where that has no kernel."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, inputs)
    except Exception as error:
        reason = str(error)
    try:
        evaluator: Any = ReferenceEvaluator(model)
        return evaluator.run(None, inputs)
    except Exception as error:
        return f"onnxruntime: {reason[:120]}; reference: {str(error)[:60]}"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(600)
def test_core_ops_compute_the_same(stride: int) -> None:
    cases = [case for case in load_cases() if case.is_eligible][::stride]
    LEDGER.judge_all((case.name, failure_of(case)) for case in cases)
    assert len(cases) > 100


if __name__ == "__main__":
    eligible = [case for case in load_cases() if case.is_eligible]
    failures = {case.name: failure for case in eligible if (failure := failure_of(case))}
    LEDGER.write(failures, HEAD)
    print(f"{len(eligible) - len(failures)} of {len(eligible)} pass")
