"""Models with operators of shared libraries, optimized and compressed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import triune
from support.compressible import matrix, model_of
from triune.core.errors import InvalidArgumentError

W = 0.1 * matrix(64, 64)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """y = |x @ W| @ W.T, whose absolute value an operator of onnxruntime-extensions computes."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="one"),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("NegPos", ["b"], ["n", "p"], domain="ai.onnx.contrib"),
        helper.make_node("Sub", ["p", "n"], ["d"]),
        helper.make_node("MatMul", ["d", "v"], ["y"], name="two"),
    ]
    model = model_of(nodes, {"x": (TensorProto.FLOAT, ["n", 64])}, ["y"], {"w": W, "v": np.ascontiguousarray(W.T)})
    model.opset_import.append(helper.make_opsetid("ai.onnx.contrib", 1))
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize(
    ("form", "most"),
    [
        (None, 1e-6),
        ({"weights": "int8"}, 0.02),
        ({"weights": "int8", "activations": "int8"}, 0.05),
        ({"weights": "int4", "group": 32, "method": "gptq"}, 0.3),
    ],
)
def test_models_with_operators_of_a_library(form: Mapping[str, Any] | None, most: float, source: Path) -> None:
    extensions = pytest.importorskip("onnxruntime_extensions", reason="pip install onnxruntime-extensions")
    library, target = extensions.get_library_path(), source.with_name("out.onnx")
    if form is None:
        triune.optimize(source, target, custom_ops=library)
    else:
        done = triune.compress(source, target, custom_ops=library, **form)
        # The types behind the operator are known, so that both products are quantized.
        assert [each.form for each in done.report.layers] == [form["weights"]] * 2
    x = matrix(4, 64, 5)
    with triune.load(target, "cpu", custom_ops=library) as model:
        found = model.run({"x": x})["y"]
    wanted = np.abs(x @ W) @ W.T
    assert np.abs(found - wanted).max() < most * np.abs(wanted).max()


@pytest.mark.parametrize("function", ["optimize", "compress"])
def test_a_library_that_does_not_load_is_named(function: str, source: Path) -> None:
    library = source.with_name("broken.so")
    library.write_bytes(b"\x7fELF")
    form = {"weights": "int8"} if function == "compress" else {}
    with pytest.raises(InvalidArgumentError, match=r"the library of custom operators '.*broken\.so' cannot be loaded"):
        getattr(triune, function)(source, source.with_name("out.onnx"), custom_ops=library, **form)
    assert not source.with_name("out.onnx").exists()
