"""ONNX's node tests through Triune and through coreai-onnx, in one run: both judged by Apple's own interpreter.

Usage: compare_coreai_onnx.py PYTHON, a Python with coreai-onnx==1.2.1 installed. Prints the table that stands in
docs/conformance.md. Inputs that decide shapes are bound to their values for both, where the conversion refuses the
case otherwise.
"""

import functools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from conformance.test_onnx_to_coreai import results
from support.apple_interpreter import Apart
from support.onnx_cases import Case, difference, load_cases
from support.peers import convert_all, table
from triune.coreai.executable import AppleExecutable


def peer_failure(argument: tuple[str, Path]) -> str:
    """For a process of its own: what is wrong with the peer's asset of a case, or nothing."""
    name, path = argument
    case = _cases()[name]
    executable = AppleExecutable(path, "main", None, "fp32")
    try:
        known = {spec.name: spec for spec in executable.signature.inputs}
        names = [spec.name for spec in executable.signature.outputs]
        for feeds, expected in case.sets:
            inputs = {
                key: np.asarray(array).astype(known[key].datatype.dtype) for key, array in feeds.items() if key in known
            }
            found = executable.run(inputs, names)
            if len(names) != len(expected):
                return "wrong: outputs are missing"
            for output, right in zip(names, expected, strict=True):
                if failure := _difference(case, found[output], np.asarray(right)):
                    return f"wrong: {failure}"
    finally:
        executable.close()
    return ""


def _difference(case: Case, actual: Any, right: Any) -> str:
    actual = actual.astype(right.dtype)
    if case.is_random:
        actual = right if actual.shape == right.shape else actual
    atol = 1e-3 if right.dtype == np.float16 else 1e-5
    return difference(actual, right, rtol=max(case.rtol, 1e-3), atol=max(case.atol, atol))


@functools.cache
def _cases() -> dict[str, Case]:
    return {case.name: case for case in load_cases()}


def main() -> None:
    """Print the table."""
    cases = [case for case in load_cases() if case.is_eligible]
    if len(sys.argv) > 2:
        cases = cases[:: int(sys.argv[2])]
    ours = dict(results([case.name for case in cases], 2))
    with tempfile.TemporaryDirectory() as name:
        path = convert_all(sys.argv[1], "coreai_onnx", cases, Path(name), ".aimodel")
        apart = Apart(peer_failure)
        rows = []
        for case in cases:
            found = path(case.name)
            theirs = "unsupported" if found is None else _tried(apart, case.name, found)
            rows.append((case, ours[case.name].failure, theirs))
    print(table("coreai-onnx", rows))


def _tried(apart: Apart, name: str, path: Path) -> str:
    try:
        return str(apart((name, path)))
    except Exception as error:
        return f"error: {error}"


if __name__ == "__main__":
    main()
