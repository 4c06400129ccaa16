from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from support.repositories import affine
from triune.graph import load as loading
from triune.graph.load import read_model


class Unsized:
    """A model whose size nobody may ask for: it is found by writing all of it, while no other thread runs."""

    def __init__(self, model: ModelProto) -> None:
        self._model = model

    @classmethod
    def FromString(cls, content: bytes) -> "Unsized":
        return cls(ModelProto.FromString(content))

    def __getattr__(self, name: str) -> Any:
        assert name not in ("ByteSize", "SerializeToString")
        return getattr(self._model, name)


def test_a_model_that_is_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(affine())
    monkeypatch.setattr(loading, "ModelProto", Unsized)
    assert [each.name for each in read_model(path).graph.input] == ["x"]
