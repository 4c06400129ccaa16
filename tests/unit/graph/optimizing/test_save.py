"""Models are written whole, or beyond a limit with their weights beside them."""

import errno
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from support.graphs import model_of
from triune.core.errors import InvalidArgumentError
from triune.graph.load import load
from triune.graph.optimizing.save import save

WEIGHT = np.arange(200 * 300, dtype=np.float32).reshape(200, 300)


@pytest.fixture
def model(tmp_path: Path) -> ModelProto:
    made = model_of("g (float[n,200] x) => (float[n,300] y) { y = MatMul(x, w) }", opset=20)
    made.graph.initializer.append(numpy_helper.from_array(WEIGHT, "w"))
    onnx.save(made, tmp_path / "source.onnx")
    return load(tmp_path / "source.onnx")


def test_in_one_file(model: ModelProto, tmp_path: Path) -> None:
    assert save(model, tmp_path / "one.onnx") is False
    (weight,) = onnx.load(tmp_path / "one.onnx").graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(weight), WEIGHT)


def test_beside_it_beyond_the_limit(model: ModelProto, tmp_path: Path) -> None:
    assert save(model, tmp_path / "two.onnx", most_inline_bytes=1000) is True
    assert (tmp_path / "two.onnx").stat().st_size < 1000
    assert (tmp_path / "two.onnx.data").stat().st_size == WEIGHT.nbytes
    (weight,) = onnx.load(tmp_path / "two.onnx").graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(weight), WEIGHT)
    onnx.checker.check_model(str(tmp_path / "two.onnx"))


@pytest.mark.parametrize("limit", [1000, 10**9])
def test_a_full_disk(model: ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    def full(*given: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InvalidArgumentError, match=r"'full.onnx', which takes 24\d{4} bytes: No space left on device"):
        save(model, tmp_path / "full.onnx", most_inline_bytes=limit)
