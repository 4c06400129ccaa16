"""Models with custom operators on every unit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import triune
from support.custom_ops import SOURCE, in_numpy, with_body
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.custom import custom_op, read_custom_ops
from triune.runtimes.compiled_cache import CompiledCache
from triune.runtimes.custom import resolved_file

X = np.array([[3, -1, 2], [0, 1, 5]], np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ops.py"
    path.write_text(SOURCE)
    return path


def saved(folder: Path, model: ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def swish(x: Any, beta: float = 1.0) -> Any:
    return x / (1 + np.exp(-beta * x))


def ranks(x: Any) -> tuple[Any, Any]:
    return np.argsort(x, axis=-1), np.sort(x, axis=-1) * [-1, -2, -3]


@pytest.mark.parametrize(("unit", "library"), [("cpu", "onnxruntime"), ("amx", "openvino"), ("gpu", "mlx.core")])
def test_bodies_run_on_every_unit(tmp_path: Path, file: Path, unit: str, library: str) -> None:
    pytest.importorskip(library)
    if unit == "amx" and "amx" not in {each.unit.value for each in triune.units() if each.presence.value != "absent"}:
        pytest.skip("this machine has no amx")
    with triune.load(saved(tmp_path, with_body()), unit, custom_ops=file) as model:
        y = model.run({"x": X})["y"]
    np.testing.assert_allclose(y, swish(swish(X, 2)) + X, rtol=3e-2 if unit == "amx" else 1e-5, atol=1e-2)


def test_numpy_runs_in_a_process_of_its_own(tmp_path: Path, file: Path) -> None:
    """And survives what its functions raise."""
    order, ordered = ranks(swish(X, 2))
    with triune.load(saved(tmp_path, in_numpy()), "cpu", custom_ops=file) as model:
        for _ in range(2):
            found = model.run({"x": X})
            np.testing.assert_array_equal(found["order"], order)
            np.testing.assert_allclose(found["y"], swish(ordered) + X, rtol=1e-5)
            with pytest.raises(
                InvalidArgumentError, match="'my.domain::Ranks' at Ranks 'order' failed: ValueError: seven"
            ):
                model.run({"x": np.zeros((7, 3), np.float32)})


def test_objects_run_in_this_process(tmp_path: Path) -> None:
    calls: list[int] = []

    @custom_op("my.domain::Swish")
    def swish_here(x: Any, *, beta: float = 1.0) -> Any:
        calls.append(len(x))
        return swish(x, beta).astype(np.float32)

    with triune.load(saved(tmp_path, with_body()), "cpu", custom_ops=[swish_here]) as model:
        y = model.run({"x": X})["y"]
        assert "numpy: my.domain::Swish" in model._executable.report
    np.testing.assert_allclose(y, swish(swish(X, 2)) + X, rtol=1e-5)
    assert calls == [2, 2]


def test_other_units_refuse_what_only_numpy_computes(tmp_path: Path, file: Path) -> None:
    pytest.importorskip("mlx.core")
    with pytest.raises(
        UnsupportedError, match="unit 'gpu' needs .* numpy function only, which runs on 'cpu': my.domain::Ranks 'order'"
    ):
        triune.load(saved(tmp_path, in_numpy()), "gpu", custom_ops=file)


def test_files_are_kept(tmp_path: Path, file: Path) -> None:
    ops, cache = read_custom_ops(file), CompiledCache(tmp_path / "kept")
    path = saved(tmp_path, with_body())
    first = resolved_file(path, ops, cache)
    stamp = first.stat().st_mtime_ns
    assert resolved_file(path, ops, cache) == first
    assert first.stat().st_mtime_ns == stamp
    # A model without custom operators is served as it is, and so is the result.
    assert resolved_file(first, ops, cache) == first


def test_a_library_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    library = tmp_path / "ops.so"
    library.write_bytes(b"no library")
    with pytest.raises(InvalidArgumentError, match="the library of custom operators '.*ops.so' cannot be loaded"):
        triune.load(saved(tmp_path, with_body()), "cpu", custom_ops=library)


def test_libraries_are_for_models_that_need_them(tmp_path: Path, file: Path) -> None:
    """A model whose operators have bodies loads no library."""
    library = tmp_path / "ops.so"
    library.write_bytes(b"no library")
    with triune.load(saved(tmp_path, with_body()), "cpu", custom_ops=[file, library]) as model:
        assert model.run({"x": X})["y"].shape == (2, 3)
