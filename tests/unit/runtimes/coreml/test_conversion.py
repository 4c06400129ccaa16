"""ONNX models converted when they are loaded: in another process, in the Neural Engine's layout, kept once whole."""

from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from onnx import ModelProto

from contract.runtimes.models import identity
from support.transformers import encoder, hidden, random_minilm
from triune.core.datatypes import DataType
from triune.core.errors import UnavailableError, UnsupportedError
from triune.core.units import Presence, Unit, UnitStatus
from triune.coreml.package import read_package
from triune.runtimes.compiled_cache import CompiledCache
from triune.runtimes.coreml import CoreMl
from triune.runtimes.coreml.conversion import convert_here

UNITS = (
    UnitStatus(Unit.CPU, Presence.PRESENT, "a CPU"),
    UnitStatus(Unit.ANE, Presence.EMULATED, reason="it is emulated"),
)
SHAPES = {"coreml.shapes": "x=1..4,1..32,32"}


@pytest.fixture
def cache(tmp_path: Path) -> CompiledCache:
    return CompiledCache(tmp_path / "cache")


def save(folder: Path, model: ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def packages(cache: CompiledCache) -> list[Path]:
    return sorted(cache.folder.glob("*.mlpackage"), key=lambda path: path.stat().st_mtime)


def ops_of(package: Path) -> Counter[str]:
    return Counter(operation.op for operation in read_package(package).function().block.operations)


@pytest.fixture
def children() -> list[psutil.Process]:
    """Processes that other tests keep."""
    return psutil.Process().children()


def test_it_happens_in_another_process(cache: CompiledCache, tmp_path: Path, children: list[psutil.Process]) -> None:
    runtime = CoreMl(UNITS, cache)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = save(tmp_path, identity(shape=(2, 3)))
    executable = runtime.load(path, unit=Unit.ANE, num_threads=1, options={})
    np.testing.assert_array_equal(executable.run({"x": x}, ["y"])["y"], x)
    assert len(packages(cache)) == 1
    save(tmp_path, identity(DataType.BYTES, (3,)))
    with pytest.raises(UnsupportedError, match="^input 'x' is STRING"):
        runtime.load(path, unit=Unit.ANE, num_threads=1, options={})
    assert psutil.Process().children() == children
    assert len(packages(cache)) == 1


def test_one_that_takes_too_long_is_ended_and_leaves_nothing(
    cache: CompiledCache, tmp_path: Path, children: list[psutil.Process]
) -> None:
    path = save(tmp_path, random_minilm())
    shapes = ";".join(f"{name}=1,1..64" for name in ("input_ids", "attention_mask", "token_type_ids"))
    options = {"coreml.shapes": shapes, "coreml.conversion_seconds": 1}
    with pytest.raises(UnavailableError, match=r"model.onnx' was not done within 1 s.*'coreml.conversion_seconds'"):
        CoreMl(UNITS, cache).load(path, unit=Unit.ANE, num_threads=1, options=options)
    assert psutil.Process().children() == children
    assert [each.name for each in cache.folder.iterdir()] == [".lock"]


def test_what_a_killed_server_left_is_removed(cache: CompiledCache, tmp_path: Path) -> None:
    (cache.folder / ".making-1" / "half.mlpackage").mkdir(parents=True)
    made = cache.get("a.mlpackage", Path.mkdir)
    assert sorted(each.name for each in cache.folder.iterdir()) == [".lock", "a.mlpackage"]
    assert made.is_dir()


def test_transformers_are_in_the_layout_on_ane(cache: CompiledCache, tmp_path: Path) -> None:
    runtime = CoreMl(UNITS, cache, convert=convert_here)
    path = save(tmp_path, encoder("thirds"))
    inputs = hidden(2, 7)
    answers = {}
    for name, unit, layout in (
        ("ane", Unit.ANE, {}),
        ("cpu", Unit.CPU, {}),
        ("same", Unit.ANE, {"coreml.layout": "source"}),
        ("again", Unit.CPU, {"coreml.layout": "ane"}),
    ):
        executable = runtime.load(path, unit=unit, num_threads=1, options={**SHAPES, **layout})
        answers[name] = executable.run(inputs, ["y"])["y"]
    # Each layout is converted once, whatever the unit.
    laid, plain = map(ops_of, packages(cache))
    assert (laid["conv"], laid["einsum"], laid["linear"]) == (2, 8, 0)
    assert (plain["conv"], plain["einsum"], plain["linear"]) == (0, 0, 2)
    for name in ("ane", "same", "again"):
        np.testing.assert_allclose(answers[name], answers["cpu"], atol=5e-3, err_msg=name)
    assert not np.array_equal(answers["ane"], answers["cpu"])
