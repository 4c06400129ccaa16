import numpy as np
import pytest

from support.configs import model_config
from triune.config.checks import check
from triune.config.model_config import TensorConfig
from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceRequest, RequestedOutput

X = TensorConfig("x", DataType.FP32, (3, -1))
MASK = TensorConfig("mask", DataType.INT64, (2,), is_optional=True)
Y = TensorConfig("y", DataType.FP32, (1,))


def request(outputs: tuple[RequestedOutput, ...] = (), **inputs: Array) -> InferenceRequest:
    return InferenceRequest("model", inputs, outputs=outputs)


def test_a_batch_that_fits() -> None:
    x = np.zeros((2, 3, 5), np.float32)
    inputs, batch_size = check(request(x=x), model_config([X, MASK], [Y], max_batch_size=4))
    assert inputs["x"] is x
    assert batch_size == 2


def test_without_batching_the_shape_is_the_whole_shape() -> None:
    inputs, batch_size = check(request(x=np.zeros((3, 0), np.float32)), model_config([X], [Y]))
    assert inputs["x"].shape == (3, 0)
    assert batch_size == 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {},
            r"^expected number of inputs between 1 and 2 but got 0 inputs for model 'model'\. Got input\(s\) \[\], "
            r"but missing required input\(s\) \['x'\]",
        ),
        (
            {"x": np.zeros((1, 3, 1), np.float32), "mask": np.zeros((1, 2), np.int64), "z": np.zeros(1)},
            r"^expected number of inputs between 1 and 2 but got 3 inputs .* Got input\(s\) \['x','mask','z'\]",
        ),
        ({"x": np.zeros((1, 3, 1), np.float32), "z": np.zeros(1)}, r"unexpected inference input 'z'.*x, mask"),
        (
            {"x": np.zeros((1, 3, 1), np.float64)},
            r"^inference input 'x' data-type is 'FP64', but model 'model' expects 'FP32'",
        ),
        (
            {"x": np.zeros((1, 3), np.float32)},
            r"^unexpected shape for input 'x' for model 'model'\. Expected \[-1,3,-1\].* 1 to 4 rows.*, got \[1,3\]",
        ),
        ({"x": np.zeros((1, 4, 1), np.float32)}, r"^unexpected shape for input 'x' .*, got \[1,4,1\]"),
        ({"x": np.zeros((), np.float32)}, r"^unexpected shape for input 'x' .*, got \[\]"),
        ({"x": np.zeros((5, 3, 1), np.float32)}, r"^inference request batch-size must be <= 4 for 'model'.* 5 rows"),
        ({"x": np.zeros((0, 3, 1), np.float32)}, r"^inference request batch-size must be >= 1 for 'model'.* 0 rows"),
        (
            {"x": np.zeros((2, 3, 1), np.float32), "mask": np.zeros((1, 2), np.int64)},
            r"^input 'mask' batch size does not match other inputs for 'model': it is 1, .* has 2",
        ),
    ],
)
def test_what_does_not_fit_is_said(inputs: dict[str, Array], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        check(request(**inputs), model_config([X, MASK], [Y], max_batch_size=4))


def test_a_model_without_optional_inputs_wants_them_all() -> None:
    config = model_config([X, TensorConfig("z", DataType.FP32, (1,))], [Y])
    with pytest.raises(InvalidArgumentError, match=r"^expected 2 inputs but got 1 inputs .* missing .* \['z'\]"):
        check(request(x=np.zeros((3, 1), np.float32)), config)


def test_outputs_are_checked() -> None:
    config = model_config([X], [Y])
    x = np.zeros((3, 1), np.float32)
    with pytest.raises(InvalidArgumentError, match="unexpected inference output 'w'.*its outputs are y"):
        check(request((RequestedOutput("w"),), x=x), config)
    with pytest.raises(InvalidArgumentError, match="^output 'y' already exists in request"):
        check(request((RequestedOutput("y"), RequestedOutput("y")), x=x), config)
    with pytest.raises(InvalidArgumentError, match="classification of output 'y' is -1"):
        check(request((RequestedOutput("y", -1),), x=x), config)


def test_reshape_gives_the_model_its_own_shape() -> None:
    x = TensorConfig("x", DataType.FP32, (-1, 4), reshape=(2, -1, 2))
    inputs, _ = check(request(x=np.zeros((3, 5, 4), np.float32)), model_config([x], [Y], max_batch_size=4))
    assert inputs["x"].shape == (3, 2, 5, 2)
    scalar = TensorConfig("x", DataType.FP32, (1,), reshape=())
    inputs, _ = check(request(x=np.zeros((3, 1), np.float32)), model_config([scalar], [Y], max_batch_size=4))
    assert inputs["x"].shape == (3,)
