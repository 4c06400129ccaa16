"""ONNX's node tests through Triune's conversion and through onnx2coreml's, in one run: a table by operator family.

Usage: compare_onnx2coreml.py PYTHON, a Python with onnx2coreml==1.1.0 and coremltools==9.0 installed.

Both packages are computed by the same executor, Triune's raising to ONNX Runtime, and judged by the same tolerances.
Inputs that decide shapes are bound to their values where a conversion refuses the case otherwise, for both alike.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from conformance.test_onnx_to_coreml import given, result
from support.onnx_cases import Case, difference, load_cases
from support.peers import convert_all, table
from triune.coreml.model import Model
from triune.coreml.package import read_package
from triune.graph.passes.narrow_values import narrow_array


def peer_failure(case: Case, path: Path | None) -> str:
    """What is wrong with the peer's package, or nothing."""
    if path is None:
        return "unsupported"
    try:
        model = Model(read_package(path), executor="onnxruntime")
        names = {feature.name for feature in model.interface.inputs}
        outputs = [feature.name for feature in model.interface.outputs]
        for feeds, expected in case.sets:
            inputs = {
                key: given(narrow_array(key, np.asarray(array)))
                for key, array in feeds.items()
                if key in names or _plain(key) in names
            }
            results = model.predict({key if key in names else _plain(key): array for key, array in inputs.items()})
            if len(outputs) != len(expected):
                return "wrong: outputs are missing"
            for name, right in zip(outputs, expected, strict=True):
                right = np.asarray(right)
                actual = np.asarray(results[name])
                if right.shape == () and actual.shape == (1,):
                    actual = actual.reshape(())
                actual = actual.astype(right.dtype)
                if case.is_random:
                    actual = right if actual.shape == right.shape else actual
                if found := difference(actual, right, rtol=max(case.rtol, 1e-3), atol=max(case.atol, 1e-5)):
                    return f"wrong: {found}"
    except Exception as error:
        return f"error: {type(error).__name__}: {error}"
    return ""


def _plain(name: str) -> str:
    return "".join(each if each.isalnum() else "_" for each in name)


def main() -> None:
    """Print the table."""
    cases = [case for case in load_cases() if case.is_eligible]
    if len(sys.argv) > 2:
        cases = cases[:: int(sys.argv[2])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = convert_all(sys.argv[1], "onnx2coreml", cases, folder, ".mlpackage")
        rows = [(case, result(case, folder).failure, peer_failure(case, path(case.name))) for case in cases]
    print(table("onnx2coreml", rows))


if __name__ == "__main__":
    main()
