"""A real server whose models have custom operators."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from support.custom_ops import SOURCE, in_numpy, with_body
from support.process import Served, serve
from support.repositories import affine, write_model

X = np.array([[3, -1, 2], [0, 1, 5]], np.float32)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "body", "max_batch_size: 8 dynamic_batching { }", v1=with_body().SerializeToString())
    write_model(folder, "numpy", "max_batch_size: 8", v1=in_numpy().SerializeToString())
    write_model(folder, "plain", v1=affine())
    # What lies in a repository is no code of the server's.
    (folder / "plain" / "1" / "custom_ops.py").write_text("raise SystemExit(3)")
    file = tmp_path_factory.mktemp("ops") / "ops.py"
    file.write_text(SOURCE)
    with serve(folder, f"--custom-ops={file}") as running:
        yield running


def ask(served: Served, model: str, x: np.ndarray, *outputs: str) -> list[np.ndarray]:
    with httpclient.InferenceServerClient(served.http) as client:
        given = httpclient.InferInput("x", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        result = client.infer(model, [given])
        return [result.as_numpy(name) for name in outputs]


def swish(x: np.ndarray, beta: float = 1.0) -> np.ndarray:
    return x / (1 + np.exp(-beta * x))


def test_bodies_are_served(served: Served) -> None:
    (y,) = ask(served, "body", X, "y")
    np.testing.assert_allclose(y, swish(swish(X, 2)) + X, rtol=1e-5)


def test_numpy_functions_are_served_and_may_fail(served: Served) -> None:
    order = np.argsort(swish(X, 2), axis=-1)
    np.testing.assert_array_equal(ask(served, "numpy", X, "order")[0], order)
    with pytest.raises(InferenceServerException, match="custom operator 'my.domain::Ranks' .* seven rows are too many"):
        ask(served, "numpy", np.zeros((7, 3), np.float32), "y")
    np.testing.assert_array_equal(ask(served, "numpy", X, "order")[0], order)


def test_a_file_in_the_repository_is_not_run(served: Served) -> None:
    with httpclient.InferenceServerClient(served.http) as client:
        assert client.is_model_ready("plain")


def test_the_model_runs_in_a_process_of_its_own(served: Served) -> None:
    assert any("model 'numpy'" in line and "own process" in line for line in served.lines), served.lines


def test_a_file_that_fails_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "ops.py").write_text("import triune\n1 / 0\n")
    with (
        pytest.raises(AssertionError, match="fails in line 2: ZeroDivisionError"),
        serve(tmp_path / "models", f"--custom-ops={tmp_path / 'ops.py'}"),
    ):
        pass
