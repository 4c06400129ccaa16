"""An audit of Apple's rewriting tells what it changes, and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from support.lowered import FLOAT, INT64, model_of
from triune.core.errors import UnsupportedError
from triune.coreai.audit import audit
from triune.coreai.lowering import LowerOptions, Source, barriers, lower_functions
from triune.coreai.lowering.image_options import parse_images
from triune.graph.audit import Finding
from triune.graph.conversion.options import Precision

N = helper.make_node


def _audited(model: ModelProto, folder: Path, given: Any = None, **options: Any) -> list[Finding]:
    source = Source(model, LowerOptions(**options))
    path = lower_functions({"main": source}, folder / "m.aimodel").path
    return audit(source, path, "main", given or {})


def _rescaled() -> ModelProto:
    nodes = [N("Div", ["x", "k"], ["q"]), N("Mul", ["q", "k"], ["y"])]
    return model_of(nodes, [("x", INT64, [2, 8])], [("y", INT64, [2, 8])], k=np.array(10))


def test_what_the_rewriting_changes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barriers, "place_barriers", lambda body: None)
    found = _audited(_rescaled(), tmp_path, {"x": np.arange(16).reshape(2, 8)})
    assert [(each.step, each.output) for each in found] == [("Core AI's rewriting", "y")]
    assert found[0].difference.before in ("0", "10")


def test_what_is_right_is_not_blamed(tmp_path: Path) -> None:
    nodes = [
        N("Conv", ["x", "w", "b"], ["c"]),
        N("Mul", ["c", "s"], ["m"]),
        N("Add", ["m", "t"], ["a"]),
        N("Sub", ["a", "t"], ["d"]),
        N("Sigmoid", ["d"], ["g"]),
        N("Mul", ["d", "g"], ["y"]),
        N("Greater", ["y", "t"], ["p"]),
        N("Where", ["p", "y", "d"], ["z"]),
    ]
    rng = np.random.default_rng(2)
    weights: dict[str, Any] = {"w": rng.standard_normal((3, 2, 2, 2)), "b": np.ones(3), "t": np.array(100.0)}
    weights["s"] = rng.standard_normal((1, 3, 1, 1))
    outputs = [(name, FLOAT, [1, 3, 4, 4]) for name in "yz"]
    constants = {name: array.astype(np.float32) for name, array in weights.items()}
    model = model_of(nodes, [("x", FLOAT, [1, 2, 5, 5])], outputs, **constants)
    assert _audited(model, tmp_path, precision=Precision.FP16) == []


def test_images_need_an_interpreter_that_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triune.coreai.verify.takes_images", lambda: False)
    source = Source(_rescaled(), LowerOptions(images=parse_images({"x": "rgb24"})))
    with pytest.raises(UnsupportedError, match="takes no images on this system"):
        audit(source, tmp_path / "m.aimodel", "main", {})
