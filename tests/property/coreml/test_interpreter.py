import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from contract.coreml import elementwise, layers, shapes, weights
from support.examples import examples
from support.mil_programs import make_package
from triune.core.errors import TriuneError
from triune.coreml.interpreter import Interpreter
from triune.coreml.mil import Array, Block, Constant, DType, Function, Operation, Output, Program, TensorType
from triune.coreml.package import Package

CASES = [*elementwise.CASES[::4], *shapes.CASES, *layers.CASES[::2], *weights.CASES]
STRANGE = [
    (np.array(-7, np.int32), DType.INT32),
    (np.array(1000, np.int32), DType.INT32),
    (np.array(np.nan, np.float32), DType.FP32),
    (np.array("sideways", object), DType.STRING),
    (np.array(True), DType.BOOL),
    (np.array([], np.int32), DType.INT32),
    (np.array([0, 0], np.int32), DType.INT32),
    (np.array([-1, 2, 900], np.int32), DType.INT32),
    (np.ones((2, 3), np.float32), DType.FP32),
    (np.ones((1, 1, 1, 1, 1), np.float16), DType.FP16),
]


@functools.cache
def package_of(at: int) -> Package:
    return make_package(CASES[at].build, CASES[at].inputs, CASES[at].target)


def constants_of(package: Package) -> list[int]:
    return [at for at, each in enumerate(package.function().block.operations) if each.op == "const"]


def with_constant(package: Package, at: int, array: Array, dtype: DType) -> Package:
    function = package.function()
    operations = list(function.block.operations)
    output = Output(operations[at].outputs[0].name, TensorType(dtype, array.shape))
    attributes: Mapping[str, Any] = {"val": Constant(array, dtype)}
    operations[at] = Operation("const", {}, (output,), (), attributes)
    block = Block(function.block.inputs, tuple(operations), function.block.outputs)
    changed = Function(function.name, function.inputs, function.opset, block)
    return dataclasses.replace(package, program=Program({function.name: changed}))


@examples(400, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, len(CASES) - 1), st.integers(0, 20), st.sampled_from(STRANGE))
def test_strange_parameters_give_an_answer_or_a_typed_error(
    case: int, which: int, strange: tuple[Array, DType]
) -> None:
    package = package_of(case)
    constants = constants_of(package)
    if not constants:
        return
    changed = with_constant(package, constants[which % len(constants)], *strange)
    try:
        Interpreter(changed).run(CASES[case].inputs, {})
    except TriuneError as error:
        assert "operation '" in str(error)  # noqa: PT017 (an answer is right as well)
