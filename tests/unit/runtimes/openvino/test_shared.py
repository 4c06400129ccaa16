"""Models that the executables of one file share."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from support.repositories import affine
from triune.core.units import Unit
from triune.runtimes.machine import this_machine
from triune.runtimes.shared_models import SharedModels


class Model:
    """What is read."""


def test_a_file_is_read_once_while_someone_holds_it_and_again_when_it_changed(tmp_path: Path) -> None:
    path, weights = tmp_path / "model.onnx", tmp_path / "weights.bin"
    path.write_bytes(b"one")
    weights.write_bytes(b"one")
    reads: list[Path] = []

    def read(path: Path) -> Model:
        reads.append(path)
        return Model()

    models = SharedModels(read)
    first = models.read(path, [weights])
    assert models.read(path, [weights]) is first
    weights.write_bytes(b"three")
    second = models.read(path, [weights])
    assert second is not first
    os.utime(path, ns=(1, 1))
    third = models.read(path, [weights])
    assert third not in (first, second)
    assert len(reads) == 3
    # Other bytes, of the same size and time.
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert models.read(path, [weights]) is not third
    assert len(reads) == 4
    del first, second, third
    gc.collect()
    models.read(path, [weights])
    assert len(reads) == 5
    path.unlink()
    with pytest.raises(OSError, match="No such file"):
        models.read(path, [weights])


def test_executables_of_one_file_answer_for_themselves_and_see_a_new_file(tmp_path: Path) -> None:
    runtime = this_machine().runtimes.get("openvino")
    if runtime is None:
        pytest.skip("OpenVINO is not installed")
    path = tmp_path / "model.onnx"
    path.write_bytes(affine(2))
    x = np.ones((2, 4), np.float32)
    old = [runtime.load(path, unit=Unit.CPU, num_threads=1, options={}) for _ in range(3)]
    path.write_bytes(affine(3))
    new = runtime.load(path, unit=Unit.CPU, num_threads=1, options={})
    old.pop().close()
    assert [float(each.run({"x": x}, ["y"])["y"][0, 0]) for each in (*old, new)] == [2, 2, 3]
    for each in (*old, new):
        each.close()
