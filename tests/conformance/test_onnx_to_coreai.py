"""ONNX's node tests converted to Core AI and computed by Apple's own interpreter: the right answers, or a reason.

`python tests/conformance/test_onnx_to_coreai.py` writes the ledger anew after a whole run; with words it runs the cases
whose names hold one of them.
"""

import functools
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from support.apple_interpreter import Apart, interpret
from support.converted_cases import Result, Runner, deciding_inputs, result_of
from support.ledger import Ledger
from support.onnx_cases import load_cases
from triune.coreai.lowering import LowerOptions, lower

LEDGER = Ledger(Path(__file__).with_name("onnx_to_coreai.ledger"))
HEAD = """ONNX node tests that do not become a right Core AI program: unsupported (refused), wrong, or another error."""


def result(name: str) -> Result:
    """For a process of its own: what comes of the case of that name."""
    with tempfile.TemporaryDirectory() as folder:
        return result_of(_cases()[name], functools.partial(_convert, folder=Path(folder)))


def _convert(model: ModelProto, constants: Mapping[str, Any], folder: Path) -> list[Runner]:
    lowered = lower(model, folder / "case.aimodel", LowerOptions(constants=constants))
    known = {value.name for value in model.graph.input} - set(constants)

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        return interpret(lowered.path, {name: array for name, array in inputs.items() if name in known})

    return [Runner("Core AI", run)]


def resized_freely(argument: tuple[str, bool]) -> Result:
    """As `result`, of a case of Resize whose image may have any size, its other operands bound or not."""
    name, is_bound = argument
    case = _cases()[name]

    def convert(model: ModelProto, constants: Mapping[str, Any], folder: Path) -> list[Runner]:
        free = ModelProto()
        free.CopyFrom(model)
        for value in (free.graph.input[0], *free.graph.output):
            for place, dim in enumerate(value.type.tensor_type.shape.dim):
                dim.dim_param = f"{value.name}{place}"
        return _convert(free, {**constants, **(deciding_inputs(case) if is_bound else {})}, folder)

    with tempfile.TemporaryDirectory() as folder:
        return result_of(case, functools.partial(convert, folder=Path(folder)))


@functools.cache
def _cases() -> Mapping[str, Any]:
    return {case.name: case for case in load_cases() if case.is_eligible}


def results(names: Sequence[str], num_processes: int = 1) -> Iterable[tuple[str, Result]]:
    """In order."""

    def run(part: int) -> list[Result]:
        apart = Apart(result)
        return [_tried(apart, name) for name in names[part::num_processes]]

    with ThreadPoolExecutor(num_processes) as pool:
        parts = list(pool.map(run, range(num_processes)))
    return [(name, parts[index % num_processes][index // num_processes]) for index, name in enumerate(names)]


def _tried(apart: Apart, name: str) -> Result:
    try:
        return apart(name)
    except Exception as error:
        return Result(f"error: {error}")


@pytest.mark.timeout(1800)
def test_converted_nodes_compute_the_same(stride: int) -> None:
    names = list(_cases())[:: stride * 2 if stride > 1 else 1]
    LEDGER.judge_all((name, each.failure) for name, each in results(names))
    assert len(names) > 60


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("is_bound", [True, False])
def test_images_of_free_sizes_are_resized(is_bound: bool, stride: int) -> None:
    names = [name for name, case in _cases().items() if case.model.graph.node[0].op_type == "Resize"]
    apart = Apart(resized_freely)
    found = {name: apart((name, is_bound)) for name in names[:: 4 if stride > 1 else 1]}
    # Nothing had to be bound for the conversion to take it.
    assert {name: each for name, each in found.items() if each.num_bound} == {}
    LEDGER.judge_all((name, each.failure) for name, each in found.items())
    assert len(found) >= 9


def test_no_answer_is_wrong() -> None:
    assert [case for case, reason in LEDGER.reasons.items() if reason.startswith("wrong")] == []


def main() -> None:
    """Run all, or the cases whose names hold one of the arguments; only a whole run writes the ledger."""
    wanted = sys.argv[1:]
    names = [name for name in _cases() if not wanted or any(each in name for each in wanted)]
    found = dict(results(names, 2))
    failures = {name: each.failure for name, each in found.items() if each.failure}
    if wanted:
        print("\n".join(f"{name}: {failure}" for name, failure in failures.items()))
    else:
        LEDGER.write(failures, HEAD)
    num_bound = sum(1 for each in found.values() if each.num_bound and not each.failure)
    print(f"{len(names) - len(failures)} of {len(names)} pass, {num_bound} of them with inputs bound to their values")


if __name__ == "__main__":
    main()
