"""A full disk is an error before Core AI's library writes to it, which would end the process."""

import errno
import resource
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper

from support.lowered import FLOAT, model_of

pytest.importorskip("coreai")

from triune.coreai.lowering import lower

Usage = namedtuple("Usage", "total used free")
WEIGHT_BYTES = 4 * 256 * 1024


def model() -> ModelProto:
    weight = np.random.default_rng(0).standard_normal((256, 1024)).astype(np.float32)
    values = [("x", FLOAT, [1, 256])], [("y", FLOAT, [1, 1024])]
    return model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], *values, w=weight)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = WEIGHT_BYTES
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, 0, free))
    with pytest.raises(OSError) as caught:
        lower(model(), tmp_path / "m.aimodel")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, f"{tmp_path / 'm.aimodel'}")
    assert not (tmp_path / "m.aimodel").exists()
    # It takes what its weights take, and little more.
    free = WEIGHT_BYTES + (2 << 20)
    lower(model(), tmp_path / "m.aimodel")
    found = sum(each.stat().st_size for each in (tmp_path / "m.aimodel").rglob("*") if each.is_file())
    assert WEIGHT_BYTES < found < free


def test_files_that_may_not_be_so_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (WEIGHT_BYTES, WEIGHT_BYTES))
    with pytest.raises(OSError) as caught:
        lower(model(), tmp_path / "m.aimodel")
    assert caught.value.errno == errno.EFBIG
