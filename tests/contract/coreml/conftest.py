from collections.abc import Callable

import pytest

from triune.core.executor import Executor
from triune.coreml.interpreter import Interpreter
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import Package

EXECUTORS: dict[str, Callable[[Package], Executor]] = {
    "reference": Interpreter,
    "onnxruntime": lambda package: OnnxExecutor(package, num_threads=1),
}


@pytest.fixture(params=EXECUTORS)
def make_executor(request: pytest.FixtureRequest) -> Callable[[Package], Executor]:
    return EXECUTORS[request.param]
