"""Models whose config asks for an optimization level."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from support.graphs import model_of, ops_of
from triune.backends.tensor.compile import compile_one
from triune.backends.tensor.executable import SharedExecutable
from triune.backends.tensor.optimized import optimized_file
from triune.config.placement import Recipe
from triune.core.errors import InternalError, UnsupportedError
from triune.core.units import Unit
from triune.graph.optimizing.level import Level
from triune.runtimes.compiled_cache import CompiledCache
from triune.runtimes.machine import this_machine

TEXT = "g (float[n,4] x) => (float[n,4] y) <float one = {1}> { a = Exp(x) b = Mul(a, one) y = Neg(b) }"

STRINGS = "g (string[n] x) => (string[n] y) { a = Identity(x) y = Identity(a) }"


@pytest.fixture
def cache(tmp_path: Path) -> CompiledCache:
    return CompiledCache(tmp_path / "cache")


def file_of(text: str, folder: Path) -> Path:
    onnx.save(model_of(text, opset=20), folder / "model.onnx")
    return folder / "model.onnx"


def test_the_file_is_optimized_once(tmp_path: Path, cache: CompiledCache) -> None:
    path = file_of(TEXT, tmp_path)
    made = optimized_file(path, Level.O1, Unit.CPU, iter(()), cache)
    assert ops_of(onnx.load(made)) == ["Exp", "Neg"]
    before = made.stat().st_mtime_ns
    assert optimized_file(path, Level.O1, Unit.CPU, iter(()), cache) == made
    assert made.stat().st_mtime_ns == before
    assert optimized_file(path, Level.O0, Unit.CPU, iter(()), cache) != made
    assert optimized_file(path, Level.O1, Unit.AMX, iter(()), cache) != made


def test_samples_are_used_where_nothing_can_be_made_up(tmp_path: Path, cache: CompiledCache) -> None:
    path = file_of(STRINGS, tmp_path)
    wrong = {"x": np.ones(2, np.float32)}
    with pytest.raises(UnsupportedError, match="give a sample that it takes in model_warmup, or leave out"):
        optimized_file(path, Level.O1, Unit.CPU, iter([wrong]), cache)
    samples = iter([wrong, {"x": np.array(["a", "b"], np.object_)}])
    assert ops_of(onnx.load(optimized_file(path, Level.O1, Unit.CPU, samples, cache))) == ["Identity"]


def test_constants_of_gigabytes_meet_the_memory_limit(tmp_path: Path, cache: CompiledCache) -> None:
    """A file of 300 bytes, with a constant of 6.4 GB."""
    text = """g (float[1] x) => (float[1] y) <int64[2] shape = {40000, 40000}> {
        ones = ConstantOfShape <value = float[1] {1}> (shape)
        total = ReduceSum <keepdims = 0> (ones)
        y = Add(x, total)
    }"""
    with pytest.raises(InternalError, match="took more than 1000000000 bytes.*--conversion-memory-bytes"):
        optimized_file(file_of(text, tmp_path), Level.O2, Unit.CPU, iter(()), cache, memory_bytes=1_000_000_000)


def test_the_file_of_a_loaded_model_stays_in_a_full_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIUNE_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("TRIUNE_CACHE_BYTES", "1")
    machine, path = this_machine(), file_of(TEXT, tmp_path)

    def entries() -> int:
        return len(list((tmp_path / "kept/optimized").glob("*/model.onnx")))

    def load(level: Level) -> SharedExecutable:
        return compile_one(path, Recipe("onnxruntime", Unit.CPU, 1, (), level=level), machine)

    first = load(Level.O0)
    second = load(Level.O1)
    assert entries() == 2
    first.close()
    third = load(Level.O2)
    assert entries() == 2
    assert len({first, second, third}) == 3
