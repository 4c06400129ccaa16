"""What a server measured is stored where plans of the same file look for it."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from support.repositories import affine, write_model
from triune.backends.attempt import Attempt
from triune.backends.machine_backend import Shared
from triune.backends.served_times import ServedTimes, digests_of
from triune.backends.tensor.backend import TensorBackend
from triune.backends.tensor.build import TensorBuild
from triune.config.configure import read_source
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.units import Unit
from triune.hardware.measured import machine_key
from triune.planning.measured import MeasuredTime, load_times, model_key
from triune.runtimes.described import known_units
from triune.runtimes.machine import this_machine

TIME = MeasuredTime(Unit.CPU, {"x": (1, 4)}, 5.0, 20)


def build(folder: Path) -> TensorBuild:
    source = read_source("m", folder / "m", stamp(folder / "m"))
    return TensorBackend(this_machine(), MonotonicClock(), shared=Shared()).build(source, 1, None, Attempt())


def test_times_are_those_of_the_file_that_was_loaded(tmp_path: Path) -> None:
    write_model(tmp_path, "m", "", v1=affine())
    path, key = tmp_path / "m/1/model.onnx", machine_key(known_units())
    expected = model_key(path, key)
    (tmp_path / "m/1/other.bin").write_bytes(b"not the model")
    built = build(tmp_path)
    # Another file takes the place of the loaded one.
    path.write_bytes(affine(3.0))
    digests = digests_of(built)
    built.close()
    assert digests is not None
    ServedTimes(tmp_path / "times").keep(digests, [TIME])
    assert not load_times(tmp_path / "times", model_key(path, key))[0]
    ((found,), reason) = load_times(tmp_path / "times", expected)
    assert not reason
    assert (found.unit, found.ms, found.num_calls) == (Unit.CPU, 5.0, 20)
    assert found.source.startswith("triune serve, 20")


def test_the_files_of_a_folder_are_counted_in_the_order_of_plans(tmp_path: Path) -> None:
    write_model(tmp_path, "m", "", v1=affine())
    built = build(tmp_path)
    built.close()
    package = tmp_path / "m/1/model.mlpackage"
    for name in ("Manifest.json", "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(name)
    source = read_source("m", tmp_path / "m", stamp(tmp_path / "m"))
    digests = digests_of(replace(built, config=replace(built.config, path=package), source=source))
    assert digests is not None
    assert len(digests) == 3
    ServedTimes(tmp_path / "times").keep(digests, [TIME])
    assert load_times(tmp_path / "times", model_key(package, machine_key(known_units())))[0]


def test_a_folder_that_cannot_be_written_to_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "times").write_text("a file")
    with caplog.at_level(logging.WARNING):
        ServedTimes(tmp_path / "times").keep(["0" * 64], [TIME])
    assert "set TRIUNE_CACHE" in caplog.text
