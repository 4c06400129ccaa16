"""Exports are compared with their sources, whatever the framework."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import triune
from support.graphs import answers, model_of
from triune.api import converting
from triune.api.frameworks.frameworks import Framework
from triune.api.frameworks.result import Compute, Export, ExporterError, Request
from triune.core.errors import InvalidArgumentError, UnsupportedError

X = np.array([[1, -2, 3]], np.float32)


def framework(compute: Compute | None, seen: list[Request] | None = None, *, is_quick: bool = False) -> Framework:
    """One whose models are exported as Relu."""

    def export(request: Request) -> Export:
        if seen is not None:
            seen.append(request)
        model = model_of("g (float[1,3] x) => (float[1,3] y) { y = Relu (x) }", opset=18)
        request.target.write_bytes(model.SerializeToString())
        return Export(compute, {"x": X}, ("a note",))

    return Framework("Example", "example", (), lambda: export, is_quick)


def relu(inputs: Mapping[str, Any]) -> Sequence[Any]:
    return [np.maximum(inputs["x"], 0)]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Framework], None]:
    return lambda chosen: monkeypatch.setattr(converting, "framework_of", lambda source: chosen)


def test_an_export_is_compared_and_written(use: Callable[[Framework], None], tmp_path: Path) -> None:
    seen: list[Request] = []
    use(framework(relu, seen))
    target = tmp_path / "m.onnx"
    done = triune.convert(object(), target, inputs={"x": -X}, shapes={"x": (1, 3)}, verify=True)
    assert done.notes == ["a note", "the export differs from Example by 0 of the largest value"]
    np.testing.assert_array_equal(answers(onnx.load(str(target)), {"x": X})[0], np.maximum(X, 0))
    np.testing.assert_array_equal(seen[0].inputs["x"], -X)


def test_an_export_goes_on_to_core_ml(use: Callable[[Framework], None], tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    use(framework(relu))
    target = tmp_path / "m.mlpackage"
    assert triune.convert(object(), target, verify=True).path == target
    np.testing.assert_array_equal(triune.predict(target, {"x": X}, "cpu")["y"], np.maximum(X, 0))


def test_another_answer_is_an_error(use: Callable[[Framework], None], tmp_path: Path) -> None:
    use(framework(lambda inputs: [inputs["x"]]))
    target = tmp_path / "m.onnx"
    with pytest.raises(
        InvalidArgumentError, match="gives other answers than Example: 'y' by 0.667 of the largest value"
    ):
        triune.convert(object(), target, verify=True)
    assert not target.exists()
    assert triune.convert(object(), target).path == target


def test_what_is_quick_is_compared_unless_that_is_refused(use: Callable[[Framework], None], tmp_path: Path) -> None:
    use(framework(lambda inputs: [inputs["x"]], is_quick=True))
    with pytest.raises(InvalidArgumentError, match=r"other answers than Example: 'y' by 0.667 .* \(--no-verify\)"):
        triune.convert(object(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    assert triune.convert(object(), tmp_path / "m.onnx", verify=False).path == tmp_path / "m.onnx"


@pytest.mark.parametrize(
    ("compute", "why"),
    [
        (lambda inputs: [inputs["x"], inputs["x"]], "which gives 2 outputs; the exported model has 1"),
        (lambda inputs: [inputs["z"]], "KeyError: 'z'"),
    ],
)
def test_what_cannot_be_compared_is_told_and_not_written_where_a_comparison_was_asked_for(
    use: Callable[[Framework], None], tmp_path: Path, compute: Compute, why: str
) -> None:
    use(framework(compute, is_quick=True))
    with pytest.raises(InvalidArgumentError, match="was not compared with Example.*give inputs") as caught:
        triune.convert(object(), tmp_path / "m.onnx", verify=True)
    assert why in str(caught.value)
    assert not list(tmp_path.iterdir())
    (_, note) = triune.convert(object(), tmp_path / "m.onnx").notes
    assert note.startswith("the export was not compared with Example")
    assert why in note


def test_what_an_exporter_refuses_is_told(use: Callable[[Framework], None], tmp_path: Path) -> None:
    def export(request: Request) -> Export:
        raise ExporterError("layer 'odd' (Bessel) has no form")

    use(Framework("Example", "example", (), lambda: export))
    with pytest.raises(UnsupportedError, match=r"layer 'odd' \(Bessel\) has no form; change the model there"):
        triune.convert(object(), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("compute", "what"),
    [
        (lambda inputs: [np.where(inputs["x"] == 0, 1, relu(inputs)[0])], "zeros"),
        (lambda inputs: [np.where(np.isnan(inputs["x"]), 1, relu(inputs)[0])], "NaN"),
    ],
)
def test_rows_with_zeros_and_nan_are_compared(
    compute: Compute, what: str, use: Callable[[Framework], None], tmp_path: Path
) -> None:
    def export(request: Request) -> Export:
        model = model_of("g (float[n,3] x) => (float[n,3] y) { y = Relu (x) }", opset=18)
        request.target.write_bytes(model.SerializeToString())
        return Export(compute, {}, takes_rows=True)

    use(Framework("Example", "example", (), lambda: export, is_quick=True))
    with pytest.raises(InvalidArgumentError, match=f"other answers than Example on rows with {what}: 'y' by"):
        triune.convert(object(), tmp_path / "m.onnx")
    assert triune.convert(object(), tmp_path / "m.onnx", verify=False).path


def test_rows_that_the_framework_refuses_do_not_count(use: Callable[[Framework], None], tmp_path: Path) -> None:
    def compute(inputs: Mapping[str, Any]) -> Sequence[Any]:
        if np.isnan(inputs["x"]).any():
            raise ValueError("Input contains NaN")
        return relu(inputs)

    def export(request: Request) -> Export:
        model = model_of("g (float[n,3] x) => (float[n,3] y) { y = Relu (x) }", opset=18)
        request.target.write_bytes(model.SerializeToString())
        return Export(compute, {}, takes_rows=True)

    use(Framework("Example", "example", (), lambda: export, is_quick=True))
    done = triune.convert(object(), tmp_path / "m.onnx")
    assert done.notes == ["the export differs from Example by 0 of the largest value"]
