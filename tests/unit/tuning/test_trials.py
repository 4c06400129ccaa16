"""Trials of real models in their process: measured, failed, hung."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.repositories import STRING, Bench, affine, identity, turning, write_model
from triune.config.parse import parse_text
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Unit
from triune.runtimes.machine import Machine, this_machine
from triune.tuning.measurement import Measurement
from triune.tuning.trial import Subject, measure
from triune.tuning.trials import Trials

PATIENCE_SECONDS = 120.0
SECONDS = 0.05
CPU = 'parameters { key: "units" value { string_value: "cpu" } }'


def subject(folder: Path, model: bytes, inputs: Path | None = None, machine: Machine | None = None) -> Subject:
    made = write_model(folder, "m", v1=model)
    return Subject("m", made, 1, machine or this_machine(), (1, 4), inputs)


def measured(made: Subject, config: str) -> Measurement:
    return measure(made, parse_text(config.encode(), "config"), SECONDS)


@contextlib.contextmanager
def trials(made: Subject) -> Iterator[Trials]:
    with contextlib.closing(Trials(made)) as running:
        yield running


def test_a_model_is_measured_and_failures_cost_nothing_else(tmp_path: Path) -> None:
    with trials(subject(tmp_path, affine())) as running:
        wrong = running.measure(parse_text(b"max_batch_size: -1", "config"), SECONDS, PATIENCE_SECONDS)
        assert "max_batch_size" in wrong.failure
        assert not wrong.levels
        found = running.measure(parse_text(f"max_batch_size: 4 {CPU}".encode(), "config"), SECONDS, PATIENCE_SECONDS)
    assert not found.failure
    assert [level.callers for level in found.levels] == [1, 4]
    for level in found.levels:
        assert level.num_requests >= level.callers
        assert level.requests_per_second > 0
        assert 0 < level.p50_ms <= level.p99_ms
        assert level.joules is None
    assert found.notes == ("the requests are made-up numbers: x [1, 4]",)
    # How often each size of batches ran depends on the machine, but single requests come first.
    assert {each.unit for each in found.times} == {Unit.CPU}
    assert {"x": (1, 4)} in [each.shapes for each in found.times]
    assert all(each.ms > 0 and each.num_calls >= 16 for each in found.times)


def test_times_of_batches_are_of_one_unit(tmp_path: Path) -> None:
    both = 'parameters { key: "units" value { string_value: "cpu,amx" } }'
    found = measured(subject(tmp_path, affine(), machine=Bench().machine), f"max_batch_size: 4 {both}")
    assert found.levels
    assert not found.times


def test_a_trial_that_hangs_is_ended_and_the_next_one_runs(tmp_path: Path) -> None:
    hanging, sound = tmp_path / "hanging", tmp_path / "sound"
    with trials(subject(hanging, turning(2**62))) as running:
        config = parse_text(f"max_batch_size: 4 {CPU}".encode(), "config")
        found = running.measure(config, SECONDS, 2.0)
        assert found.failure == "not done within 2 s"
        # The same process is not used again.
        (hanging / "m" / "1" / "model.onnx").write_bytes(subject_bytes(sound))
        assert not running.measure(config, SECONDS, PATIENCE_SECONDS).failure


def subject_bytes(folder: Path) -> bytes:
    return (subject(folder, turning(1)).folder / "1" / "model.onnx").read_bytes()


def test_units_with_wrong_answers_are_left_out_with_the_reason(tmp_path: Path) -> None:
    exact = 'parameters { key: "unit_tolerance" value { string_value: "0" } }'
    units = 'parameters { key: "units" value { string_value: "cpu,amx" } }'
    made = subject(tmp_path, affine(scale=1.2345678), machine=Bench().machine)
    with pytest.raises(UnsupportedError, match="amx"):
        measured(made, f"max_batch_size: 4 {units} {exact}")
    assert measured(made, f"max_batch_size: 4 {units}").levels
    # The server serves the given config without them, and so it is measured.
    given = measured(replace(made, units="cpu,amx"), f"max_batch_size: 4 {units} {exact}")
    assert given.levels
    assert "amx" in given.notes[-1]


def test_texts_are_not_made_up(tmp_path: Path) -> None:
    model = identity(STRING, ("batch", 2))
    with pytest.raises(UnsupportedError, match="input 'x' has texts, which cannot be made up: give a file"):
        measured(subject(tmp_path / "none", model), f"max_batch_size: 4 {CPU}")
    np.savez(tmp_path / "texts.npz", x=np.array([["a", "b"], ["c", "ä"]]))
    found = measured(subject(tmp_path / "given", model, tmp_path / "texts.npz"), f"max_batch_size: 4 {CPU}")
    assert found.levels
    assert not found.notes


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"x": np.zeros((3, 5), np.float32)}, "shape"),
        ({"x": np.zeros((0, 4), np.float32)}, "as many rows each, at least one"),
        ({"x": np.zeros((1, 4), np.float32), "z": np.zeros((2, 4), np.float32)}, "x: 1, z: 2"),
        ({"z": np.zeros((1, 4), np.float32)}, "z"),
        ({"x": np.zeros((1, 4), np.int32)}, "INT32"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], reason: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidArgumentError, match=reason):
        measured(subject(tmp_path, affine(), tmp_path / "x.npz"), f"max_batch_size: 4 {CPU}")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(InvalidArgumentError, match=r"cannot read the inputs .*numpy\.savez"):
        measured(subject(tmp_path, affine(), tmp_path / "x.npz"), f"max_batch_size: 4 {CPU}")
