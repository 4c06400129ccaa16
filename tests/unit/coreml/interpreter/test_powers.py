"""Powers: whole numbers wrap at 32 bits, as numpy's and ONNX Runtime's do; infinity follows IEEE 754."""

import numpy as np

from support.mil_programs import make_package, mb
from triune.coreml.interpreter import Interpreter
from triune.coreml.onnx_executor import OnnxExecutor


def test_powers_of_whole_numbers_wrap() -> None:
    x = np.array([5, -3, 46_341, 2**24 + 1], np.int32)
    package = make_package(lambda given: mb.pow(x=given.x, y=np.int32(2)), {"x": x}, "iOS17")
    for executor in (OnnxExecutor(package), Interpreter(package)):
        (y,) = executor.run({"x": x}, {})[0].values()
        assert y.tolist() == [25, 9, -2_147_479_015, 33_554_433]


def test_the_root_of_infinity_below_zero_is_a_power() -> None:
    x = np.array([-np.inf, np.inf, 0.25, -1], np.float32)
    package = make_package(lambda given: mb.pow(x=given.x, y=np.float32(0.5)), {"x": x}, "iOS17")
    for executor in (OnnxExecutor(package), Interpreter(package)):
        (y,) = executor.run({"x": x}, {})[0].values()
        np.testing.assert_array_equal(y, np.float32([np.inf, np.inf, 0.5, np.nan]))
