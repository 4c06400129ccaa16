"""ONNX's node tests computed with MLX: the right answers, or a reason.

`python tests/conformance/test_onnx_on_mlx.py` writes the ledger anew after a whole run; with words it runs the cases
whose names hold one of them.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from support.converted_cases import Result, Runner, result_of
from support.ledger import Ledger
from support.onnx_cases import load_cases
from triune.graph.conversion.constants import bind_constants, typed_constants
from triune.runtimes import missing

LEDGER = Ledger(Path(__file__).with_name("onnx_on_mlx.ledger"))
HEAD = "ONNX node tests that MLX does not answer rightly: unsupported (refused), wrong, or another error."

pytestmark = pytest.mark.skipif("mlx" in missing(), reason="MLX is not installed")


def _convert(model: ModelProto, constants: Mapping[str, Any]) -> list[Runner]:
    from triune.metal.function import Function
    from triune.metal.lower import lower

    bound = ModelProto()
    bound.CopyFrom(model)
    bind_constants(bound, typed_constants(bound, constants))
    function = Function(lower(bound))
    names, known = [value.name for value in model.graph.output], {value.name for value in bound.graph.input}

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        given = {name: array for name, array in inputs.items() if name in known}
        return dict(zip(names, function(given, names), strict=True))

    return [Runner("MLX", run, is_wide=True)]


def results(names: Iterable[str]) -> Sequence[tuple[str, Result]]:
    cases = {case.name: case for case in load_cases()}
    return [(name, result_of(cases[name], _convert)) for name in names]


def _names() -> list[str]:
    return [case.name for case in load_cases() if case.is_eligible]


@pytest.mark.timeout(600)
def test_nodes_compute_what_onnx_says(stride: int) -> None:
    names = _names()[::stride]
    LEDGER.judge_all((name, each.failure) for name, each in results(names))
    assert len(names) > 100


def test_no_answer_is_wrong() -> None:
    assert [case for case, reason in LEDGER.reasons.items() if reason.startswith("wrong")] == []


def main() -> None:
    """Run all, or the cases whose names hold one of the arguments; only a whole run writes the ledger."""
    wanted = sys.argv[1:]
    names = [name for name in _names() if not wanted or any(each in name for each in wanted)]
    found = dict(results(names))
    failures = {name: each.failure for name, each in found.items() if each.failure}
    if wanted:
        print("\n".join(f"{name}: {failure}" for name, failure in failures.items()))
    else:
        LEDGER.write(failures, HEAD)
    num_bound = sum(1 for each in found.values() if each.num_bound and not each.failure)
    print(f"{len(names) - len(failures)} of {len(names)} pass, {num_bound} of them with inputs bound to their values")


if __name__ == "__main__":
    main()
