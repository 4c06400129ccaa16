"""What a package says, its compiled form says too: the same program, and the same answers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.coreml.cases import Case
from contract.coreml.test_answers import CASES
from support.compiled_models import compile_package, write_compiled
from support.mil_models import (
    ct,
    save_accumulator,
    save_affine,
    save_classifier,
    save_flexible,
    save_functions,
    save_image_model,
)
from support.mil_programs import make_specification
from triune import coreml
from triune.core.errors import InvalidArgumentError
from triune.coreml.mil import Constant
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import read_package, read_specification

X = np.arange(6, dtype=np.float32).reshape(2, 3)
_RANDOM = "random_"


def plain(value: Any) -> Any:
    """Programs as what `==` compares: constants by their bits."""
    if isinstance(value, Constant):
        return (value.dtype, plain(value.value))
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.tolist() if value.dtype == object else value.tobytes())
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if dataclasses.is_dataclass(value):
        return (type(value), *(plain(getattr(value, each.name)) for each in dataclasses.fields(value)))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(plain(each) for each in value)
    return value


@pytest.mark.sampled(3)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_programs_and_answers(case: Case, tmp_path: Path) -> None:
    specification, weights = make_specification(case.build, case.inputs, case.target)
    package = read_specification(specification, weights)
    compiled = read_package(write_compiled(specification, weights, tmp_path / "m.mlmodelc"))
    assert plain(compiled.program) == plain(package.program)
    assert plain(compiled.description) == plain(package.description)
    assert compiled.specification_version == package.specification_version
    if any(each.op.startswith(_RANDOM) for each in package.function().block.operations):
        return
    want, _ = OnnxExecutor(package, num_threads=1).run(case.inputs, {})
    have, _ = OnnxExecutor(compiled, num_threads=1).run(case.inputs, {})
    for name, array in want.items():
        np.testing.assert_array_equal(have[name], array)


@pytest.mark.parametrize(
    ("save", "inputs"),
    [
        (save_affine, {"x": X}),
        (lambda folder: save_affine(folder, target="iOS15"), {"x": X}),
        (lambda folder: save_affine(folder, precision="FLOAT16"), {"x": X}),
        (save_classifier, {"x": X[:1]}),
        (
            lambda folder: save_classifier(
                folder,
                [
                    "",
                    'a "b"',
                    "c\\d\n",
                ],
            ),
            {"x": X[:1]},
        ),
        (lambda folder: save_classifier(folder, [3, 1, 2]), {"x": X[:1]}),
        (save_functions, {"x": X}),
        (save_image_model, {"x": np.arange(60, dtype=np.uint8).reshape(4, 5, 3)}),
        (lambda folder: save_flexible(folder, ct.RangeDim(1, 4)), {"x": X}),
        (lambda folder: save_flexible(folder, ct.EnumeratedShapes([[1, 3], [2, 3]])), {"x": X}),
    ],
    ids=["iOS18", "iOS15", "fp16", "classes", "odd classes", "numbers", "functions", "image", "range", "shapes"],
)
def test_models(save: Callable[[Path], Path], inputs: dict[str, Any], tmp_path: Path) -> None:
    path = save(tmp_path)
    package, compiled = coreml.load(path), coreml.load(compile_package(path, tmp_path / "m.mlmodelc"))
    assert plain(compiled.package.program) == plain(package.package.program)
    assert plain(compiled.description) == plain(package.description)
    want, have = package.predict(inputs), compiled.predict(inputs)
    assert plain(have) == plain(want)


def test_functions_by_name(tmp_path: Path) -> None:
    path = compile_package(save_functions(tmp_path), tmp_path / "m.mlmodelc")
    for name, factor in ((None, 2), ("thrice", 3)):
        np.testing.assert_array_equal(coreml.load(path, function=name).predict({"x": X})["y"], factor * X + 1)


def test_states(tmp_path: Path) -> None:
    path = compile_package(save_accumulator(tmp_path), tmp_path / "m.mlmodelc")
    assert "read_state(input = total)" in (path / "model.mil").read_text()
    model = coreml.load(path)
    state = model.make_state()
    for expected in ([[1, 2]], [[2, 4]]):
        np.testing.assert_array_equal(model.predict({"x": [[1, 2]]}, state)["y"], expected)


def test_limits_of_shapes_are_kept(tmp_path: Path) -> None:
    model = coreml.load(compile_package(save_flexible(tmp_path, ct.RangeDim(1, 4)), tmp_path / "m.mlmodelc"))
    with pytest.raises(InvalidArgumentError, match=r"it must have \[1\.\.4, 3\]"):
        model.predict({"x": np.zeros((5, 3))})
