"""Models on which ONNX Runtime's optimizer ends the process: sessions of them are made without it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, helper, numpy_helper

from support.apple_interpreter import Apart
from support.graphs import model_of
from triune.core.units import Unit
from triune.graph.fatal_fusions import fatal_fusions, without_fatal_fusions
from triune.graph.session import GraphSession
from triune.runtimes.onnxruntime import OnnxRuntime

_HALF = "agraph (float16[2,4,3] x, float16[3,6] w) => (float16[4,2,6] y)"
_FATAL = {
    "fp16": f"{_HALF} {{ t = Transpose <perm = [1, 0, 2]> (x)  y = MatMul (t, w) }}",
    "identity": f"{_HALF} {{ t = Transpose <perm = [1, 0, 2]> (x)  i = Identity (t)  y = MatMul (i, w) }}",
    "concat": f"{_HALF} {{ t = Transpose <perm = [1, 0, 2]> (x)  c = Concat <axis = 0> (t) y = MatMul (c, w) }}",
    "cast": """agraph (int32[2,4,3] x, float[3,6] w) => (float[4,2,6] y)
      { t = Transpose <perm = [1, 0, 2]> (x)  c = Cast <to = 1> (t)  y = MatMul (c, w) }""",
    "bool": """agraph (bool[2,4,3] x, float[3,6] w) => (float[4,2,6] y)
      { t = Transpose <perm = [1, 0, 2]> (x)  c = Cast <to = 1> (t)  y = MatMul (c, w) }""",
    "double": """agraph (float[3,2,4] x, double[3,6] w) => (double[2,4,6] y)
      { t = Transpose <perm = [1, 2, 0]> (x)  c = Cast <to = 11> (t)  y = MatMul (c, w) }""",
    "branch": """agraph (bool b, float16[2,4,3] x, float16[3,6] w) => (float16[4,2,6] y) { y = If (b) <
      then_branch = yes () => (float16[4,2,6] z) { t = Transpose <perm = [1, 0, 2]> (x)  z = MatMul (t, w) },
      else_branch = no () => (float16[4,2,6] v) { u = Transpose <perm = [1, 0, 2]> (x)  v = MatMul (u, w) }> }""",
}


_KINDS = {
    "fp16": (10, 10),
    "identity": (10, 10),
    "concat": (10, 10),
    "cast": (6, 1),
    "bool": (9, 1),
    "double": (1, 11),
    "branch": (10, 10),
}
"""The element types of `x` and of `w`."""


def _random(elem_type: int, *shape: int) -> Any:
    return (np.random.default_rng(0).standard_normal(shape) * 3).astype(helper.tensor_dtype_to_np_dtype(elem_type))


def _fatal(name: str) -> tuple[ModelProto, dict[str, Any], Any]:
    """The model, of a constant `w`; its inputs; what is right."""
    model = model_of(_FATAL[name])
    inputs, weight = [value for value in model.graph.input if value.name != "w"], _random(_KINDS[name][1], 3, 6)
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    x = _random(_KINDS[name][0], *((3, 2, 4) if name == "double" else (2, 4, 3)))
    right = x.transpose((1, 2, 0) if name == "double" else (1, 0, 2)).astype(np.float64) @ weight
    return model, {"x": x, **({"b": np.array(True)} if name == "branch" else {})}, right


def _answer(argument: tuple[bytes, dict[str, Any], bool]) -> Any:
    """In the other process: by a session of Triune's, or by a bare one."""
    given, inputs, is_bare = argument
    if is_bare:
        session: Any = ort.InferenceSession(given, providers=["CPUExecutionProvider"])
        return session.run(None, inputs)[0]
    return GraphSession(ModelProto.FromString(given), "it").run(inputs, {})[0]["y"]


def _loads(argument: tuple[Path, dict[str, str]]) -> None:
    """In the other process: as a server loads it."""
    path, options = argument
    OnnxRuntime().load(path, unit=Unit.CPU, num_threads=1, options=options).close()


apart = Apart(_answer)


@pytest.mark.parametrize("name", _FATAL)
def test_the_process_goes_on(name: str) -> None:
    model, inputs, right = _fatal(name)
    np.testing.assert_allclose(apart((model.SerializeToString(), inputs, False)), right, atol=5e-2)


@pytest.mark.parametrize("name", _FATAL)
def test_a_model_that_is_written_loads_in_a_bare_session(name: str) -> None:
    model, inputs, right = _fatal(name)
    without_fatal_fusions(model)
    np.testing.assert_allclose(apart((model.SerializeToString(), inputs, True)), right, atol=5e-2)


@pytest.mark.parametrize("options", [{}, {"optimization.graph.level": "0"}])
def test_a_server_goes_on(tmp_path: Path, options: dict[str, str]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(_fatal("fp16")[0].SerializeToString())
    Apart(_loads)((path, options))


def test_onnx_runtime_still_ends_the_process() -> None:
    """Where this fails ONNX Runtime has mended it, and `fatal_fusions` can go."""
    model, inputs, _ = _fatal("fp16")
    with pytest.raises(EOFError):
        apart((model.SerializeToString(), inputs, True))


@pytest.mark.parametrize(
    "text",
    [
        "agraph (float[2,4,3] x, float[3,6] w) => (float[4,2,6] y)"
        " { t = Transpose <perm = [1, 0, 2]> (x)  y = MatMul (t, w) }",
        "agraph (float16[2,3,4] x, float16[3,6] w) => (float16[2,4,6] y)"
        " { t = Transpose <perm = [0, 2, 1]> (x)  y = MatMul (t, w) }",
        "agraph (float16[2,4,3] x) => (float16[4,2,3] y) { y = Transpose <perm = [1, 0, 2]> (x) }",
    ],
)
def test_other_models_keep_their_fusions(text: str) -> None:
    assert fatal_fusions(model_of(text)) == []
