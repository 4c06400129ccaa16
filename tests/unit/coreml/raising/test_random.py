"""Random numbers: their distributions, shapes and seeds."""

from typing import Any

import numpy as np
import pytest

from support.mil_programs import make_package, mb, run
from triune.coreml.onnx_executor import OnnxExecutor

SHAPE = np.array([50, 400], np.int32)
DRAWS: dict[str, Any] = {
    "random_uniform": ({"low": np.float32(-1), "high": np.float32(3)}, 1, 2 / np.sqrt(3)),
    "random_normal": ({"mean": np.float32(2), "stddev": np.float32(0.5)}, 2, 0.5),
    "random_bernoulli": ({"prob": np.float32(0.2)}, 0.2, 0.4),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("number", [np.float32, np.float16])
@pytest.mark.parametrize("is_dynamic", [True, False])
def test_distribution(name: str, number: Any, is_dynamic: bool) -> None:
    parameters, mean, deviation = DRAWS[name]
    parameters = {key: number(value) for key, value in parameters.items()}

    def build(given: Any) -> Any:
        return getattr(mb, name)(shape=given.shape if is_dynamic else SHAPE, seed=7, **parameters)

    (output,) = run(build, {"shape": SHAPE}, "iOS17")
    assert output.shape == tuple(SHAPE)
    assert output.dtype == number
    wide = output.astype(np.float64)
    assert wide.mean() == pytest.approx(mean, abs=0.05)
    assert wide.std() == pytest.approx(deviation, abs=0.05)
    if name == "random_bernoulli":
        assert set(wide.reshape(-1)) == {0, 1}
    if name == "random_uniform":
        assert -1 <= wide.min() < wide.max() <= 3


def test_no_deviation_and_no_width() -> None:
    inputs = {"x": np.zeros(1, np.float32)}
    (output,) = run(lambda given: mb.random_normal(shape=[3], mean=np.float32(4), stddev=np.float32(0)), inputs)
    assert output.tolist() == [4, 4, 4]
    (output,) = run(lambda given: mb.random_uniform(shape=[3], low=np.float32(4), high=np.float32(4)), inputs)
    assert output.tolist() == [4, 4, 4]


@pytest.mark.parametrize("mode", ["logits", "probs"])
def test_categorical(mode: str) -> None:
    probabilities = np.array([[[0.1, 0.2, 0.7], [0.5, 0.5, 0]]], np.float32)
    x = probabilities if mode == "probs" else np.log(probabilities + 1e-12)
    (output,) = run(lambda given: mb.random_categorical(x=given.x, mode=mode, size=4000, seed=3), {"x": x})
    assert output.shape == (1, 2, 4000)
    for drawn, expected in zip(output[0], probabilities[0], strict=True):
        assert np.bincount(drawn.astype(int), minlength=3) / 4000 == pytest.approx(expected, abs=0.03)


def test_a_seed_gives_the_same_numbers() -> None:
    x = np.zeros(1, np.float32)

    def numbers(seed: int) -> list[list[float]]:
        return [run(lambda given: mb.random_normal(shape=[5], seed=seed), {"x": x})[0].tolist() for _ in range(2)]

    first, second = numbers(5)
    assert first == second
    assert numbers(6)[0] != first


def test_without_a_seed_each_call_gives_others() -> None:
    x = np.zeros(1, np.float32)
    package = make_package(lambda given: mb.random_normal(shape=[5]), {"x": x})
    executor = OnnxExecutor(package)
    (name,) = package.function().block.outputs
    first, second = (executor.run({"x": x}, {})[0][name].tolist() for _ in range(2))
    assert first != second
