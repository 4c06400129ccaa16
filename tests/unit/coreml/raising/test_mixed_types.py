"""Operations on fp16 whose parameters are fp32 do not round their parameters: both witnesses give the same fp16."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support.mil_programs import make_package, mb
from triune.coreml.interpreter import Interpreter
from triune.coreml.onnx_executor import OnnxExecutor

_RANDOM = np.random.default_rng(5)
X = _RANDOM.uniform(0, 2, (1, 4, 6)).astype(np.float16)
# Of seven digits: fp16 would round it.
ALPHA = np.float32(0.1234567)
VECTOR = _RANDOM.uniform(0.5, 2, 4).astype(np.float32)
WEIGHT = _RANDOM.uniform(-1, 1, (8, 4, 3)).astype(np.float32)

CASES: dict[str, Callable[[Any], Any]] = {
    "batch_norm": lambda v: mb.batch_norm(x=v.x, mean=VECTOR, variance=VECTOR, gamma=VECTOR, beta=VECTOR),
    "conv": lambda v: mb.conv(x=v.x, weight=WEIGHT, bias=_RANDOM.uniform(size=8).astype(np.float32)),
    "conv_transpose": lambda v: mb.conv_transpose(x=v.x, weight=np.swapaxes(WEIGHT[:4], 0, 1)),
    "elu": lambda v: mb.elu(x=mb.sub(x=v.x, y=np.float16(1)), alpha=ALPHA),
    "instance_norm": lambda v: mb.instance_norm(x=v.x, gamma=VECTOR, beta=VECTOR, epsilon=ALPHA),
    "l2_norm": lambda v: mb.l2_norm(x=v.x, epsilon=ALPHA),
    "layer_norm": lambda v: mb.layer_norm(x=v.x, axes=[-1], epsilon=ALPHA),
    "leaky_relu": lambda v: mb.leaky_relu(x=mb.sub(x=v.x, y=np.float16(1)), alpha=ALPHA),
    "linear_activation": lambda v: mb.linear_activation(x=v.x, alpha=ALPHA, beta=ALPHA),
    "local_response_norm": lambda v: mb.local_response_norm(x=v.x, size=3, alpha=ALPHA, beta=ALPHA, k=ALPHA),
    "log": lambda v: mb.log(x=v.x, epsilon=ALPHA),
    "matmul": lambda v: mb.matmul(x=v.x, y=_RANDOM.uniform(size=(6, 5)).astype(np.float32)),
    "prelu": lambda v: mb.prelu(x=mb.sub(x=v.x, y=np.float16(1)), alpha=np.full(4, ALPHA)),
    "rsqrt": lambda v: mb.rsqrt(x=v.x, epsilon=ALPHA),
}


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_not_rounded(name: str) -> None:
    package = make_package(CASES[name], {"x": X}, "iOS17")
    (ours,) = OnnxExecutor(package, num_threads=1).run({"x": X}, {})[0].values()
    (exact,) = Interpreter(package, is_exact=True).run({"x": X}, {})[0].values()
    assert ours.dtype == exact.dtype == np.float16
    # A number between two of fp16 may go either way; a rounded parameter would move many.
    assert np.mean(ours != exact) < 0.05
    np.testing.assert_allclose(ours.astype(np.float32), exact.astype(np.float32), rtol=1.1e-3, atol=1e-3)


def test_small_epsilons_do_not_vanish() -> None:
    zeros = np.zeros(3, np.float16)
    package = make_package(lambda v: mb.log(x=v.x, epsilon=np.float32(1e-10)), {"x": zeros}, "iOS17")
    (logs,) = OnnxExecutor(package, num_threads=1).run({"x": zeros}, {})[0].values()
    np.testing.assert_allclose(logs, np.log(1e-10), rtol=1e-3)
