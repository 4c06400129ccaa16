"""The trials tell what no runtime can pass from what Triune fails."""

import re
from pathlib import Path

from conformance.coremltools_ops.run import run

TESTS = """
import numpy as np
import pytest
from coremltools import target
from coremltools.converters.mil.mil import Builder as mb, types
from coremltools.converters.mil.mil.ops.tests.testing_utils import run_compare_builder
from coremltools.converters.mil.testing_reqs import BackendConfig

FP32 = BackendConfig("mlprogram", "fp32", target.iOS17)
TYPES = {np.float16: types.fp16, np.float32: types.fp32}
X = np.array([1.0, 2.0, 3.0], np.float32)
HALVES = (0.3333 * X).astype(np.float16)


def compare(build, expected, dtype=np.float32, x=X, kind=types.fp32):
    placeholders = {"x": mb.placeholder(shape=(3,), dtype=TYPES[dtype])}
    return run_compare_builder(build, placeholders, {"x": x.astype(dtype)}, (3, kind), expected, backend=FP32)


def test_right():
    compare(lambda x: mb.square(x=x), X**2)


def test_wrong():
    compare(lambda x: mb.square(x=x), X**2 + 0.001)


@pytest.mark.parametrize("dtype", [np.float16])
def test_wrong_in_both_types(dtype):
    compare(lambda x: mb.add(x=mb.cast(x=x, dtype="fp32"), y=np.float32(1)), X + 1.001, dtype)


@pytest.mark.parametrize("dtype", [np.float16])
def test_beyond_a_rounding(dtype):
    # Right in fp32; in fp16 what is expected is another thing altogether.
    expected = X**2 + (1 if dtype is np.float16 else 0)
    compare(lambda x: mb.cast(x=mb.square(x=x), dtype="fp32"), expected, dtype)


def test_wrong_elsewhere():
    model = compare(lambda x: mb.square(x=x), X**2)
    np.testing.assert_allclose(list(model.predict({"x": X}).values())[0], X, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16])
def test_output_is_too_coarse(dtype):
    compare(lambda x: mb.mul(x=x, y=dtype(1)), X + 0.0003, dtype, kind=TYPES[dtype])


@pytest.mark.parametrize("dtype", [np.float16])
def test_expectation_is_too_coarse(dtype):
    compare(lambda x: mb.add(x=x, y=HALVES.astype(dtype).astype(np.float32)), 1 + HALVES.astype(dtype), x=X / X)


def test_about_the_converter():
    model = compare(lambda x: mb.square(x=x), X**2)
    assert len(model._mil_program["main"].find_ops(op_type="cast")) == 2
"""
EXPECTED = {
    "test_right": ("passed", ""),
    "test_wrong": ("failed", ""),
    "test_wrong_in_both_types": ("failed", ""),
    "test_beyond_a_rounding": ("failed", ""),
    "test_wrong_elsewhere": ("failed", ""),
    "test_output_is_too_coarse": ("impossible", "nearest"),
    "test_expectation_is_too_coarse": ("impossible", "exact"),
    "test_about_the_converter": ("impossible", "unpredicted"),
}


def test_cases_that_cannot_pass_are_told_from_those_that_fail(tmp_path: Path) -> None:
    path = tmp_path / "test_samples.py"
    path.write_text(TESTS)
    results = run(only=str(path), parts=1)
    found: dict[str, tuple[str, str]] = {}
    for result in results:
        name = re.search(r"::(\w+)", result.case)
        assert name is not None
        found[name[1]] = (result.outcome, result.verdict)
    assert found == EXPECTED
