"""`triune compress`."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from playwright.sync_api import expect
from typer.testing import CliRunner, Result

import triune
from support.browser import chromium, fits, opened
from support.compressible import matrix, model_of, perceptron, run
from triune.api.compressing import compress as compressing
from triune.cli import app
from triune.compression.save import save
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.graph.weight_files import WeightFile


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(perceptron(), path)
    return path


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triune.api.timing._SECONDS", 0.02)


def compress(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compress", *map(str, arguments)])


def test_a_model_is_compressed_and_reported(source: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=matrix(16, 64, 7))
    target, page, values = tmp_path / "small.onnx", tmp_path / "report" / "out.html", tmp_path / "out.json"
    result = compress(
        source, "-o", target, "--weights", "int8", "--activations", "int8", "--calibrate", tmp_path / "x.npz",
        "--report", page, "--json", values, "--no-measure",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(values.read_text())
    assert found["form"] == "int8, a scale for each channel, symmetric, activations int8 by minmax"
    assert found["target_bytes"] == target.stat().st_size < found["source_bytes"] == source.stat().st_size
    (output,) = found["outputs"]
    assert (output["name"], output["measure"], output["finite"]) == ("y", "cosine", True)
    assert 0.999 < output["agreement"] == found["agreement"] <= 1
    assert [(layer["name"], layer["form"]) for layer in found["layers"]] == [("one", "int8"), ("two", "int8")]
    assert found["samples"] == "4 samples of 'x.npz', apart from the 12 that calibration may use"
    # The figures are those of the file that was written.
    sample = {"x": matrix(16, 64, 7)[:1]}
    assert np.abs(run(onnx.load(target), sample)[0] - run(perceptron(), sample)[0]).max() > 0
    assert json.dumps(found["outputs"][0]["name"]) in page.read_text()
    assert {each.name for each in tmp_path.iterdir()} == {"model.onnx", "small.onnx", "report", "out.json", "x.npz"}


@pytest.mark.usefixtures("hurried")
def test_units_at_hand_are_measured_for_a_report(source: Path, tmp_path: Path) -> None:
    values = tmp_path / "out.json"
    result = compress(source, "-o", tmp_path / "small.onnx", "--for", "cpu", "--json", values)
    assert result.exit_code == 0, result.output
    found = json.loads(values.read_text())
    assert found["form"] == "int8, a scale for each channel, symmetric, activations int8, in the range of each run"
    unit = next(each for each in found["units"] if each["unit"] == "cpu")
    for side in (unit["before"], unit["after"]):
        assert side["latency_ms"] > 0
        assert side["rows_per_second"] > 0
        assert side["joules_per_row"] is not None or side["unavailable"]
    assert unit["before"]["agreement"] == pytest.approx(1)
    assert 0.99 < unit["after"]["agreement"] < 1


def test_layers_go_back_until_the_accuracy_holds(source: Path, tmp_path: Path) -> None:
    values = tmp_path / "out.json"
    common = (source, "-o", tmp_path / "small.onnx", "--weights", "int4", "--json", values, "--no-measure")
    result = compress(*common, "--max-drop", "0.05%")
    assert result.exit_code == 0, result.output
    found = json.loads(values.read_text())
    assert found["least"] == pytest.approx(0.9995)
    assert found["agreement"] >= found["least"]
    assert "int8" in {layer["form"] for layer in found["layers"]}
    assert all(layer["output_db"] is not None for layer in found["layers"])


def test_what_agrees_too_little_is_not_written(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "small.onnx"
    target.write_text("an older file")
    arguments = (source, "-o", target, "--weights", "sparse", "--sparsity", "0.95")
    result = compress(*arguments)
    assert isinstance(result.exception, UnsupportedError)
    assert "where 90% is the least: nothing is written" in str(result.exception)
    assert target.read_text() == "an older file"
    assert compress(*arguments, "--force").exit_code == 0
    assert onnx.load(target).graph.node
    result = compress(source, "-o", target, "--weights", "palette", "--bits", "1", "--keep-accuracy", "100%")
    assert "an agreement of 100.00% cannot be kept: with 2 of 2 layers in higher precision" in str(result.exception)
    result = compress(source, "-o", target, "--weights", "int8", "--keep-accuracy", "100%")
    assert "output 'y' agrees by 99.99" in str(result.exception)


def test_what_becomes_infinite_is_not_written(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Abs", ["a"], ["b"]),
        helper.make_node("Log", ["b"], ["y"]),
    ]
    weight = matrix(32, 64)
    # One scale for the whole matrix leaves nothing of the last column, whose logarithm is then infinite.
    weight[:, -1] *= 1e-4
    model = model_of(nodes, {"x": (TensorProto.FLOAT, ["n", 32])}, ["y"], {"w": weight})
    onnx.save(model, tmp_path / "model.onnx")
    result = compress(tmp_path / "model.onnx", "-o", tmp_path / "y.onnx", "--weights", "int8", "--per", "tensor")
    assert isinstance(result.exception, UnsupportedError)
    assert "output 'y' has NaN or infinities, where 90% is the least: nothing is written" in str(result.exception)
    assert not (tmp_path / "y.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), InvalidArgumentError, "--weights int8"),
        (("--weights", "int8", "--n-m", "half"), InvalidArgumentError, "not of the form 2:4"),
        (("--weights", "int8", "--keep-accuracy", "all"), InvalidArgumentError, "write 99.2% or 0.992"),
        (("--weights", "int8", "--keep-accuracy", "120%"), InvalidArgumentError, "between 0 and 1"),
        (("--weights", "int8", "--keep-accuracy", "1", "--max-drop", "0"), InvalidArgumentError, "give one of them"),
        (("--weights", "int8", "--calibrate", "none.npz"), NotFoundError, "no samples"),
    ],
)
def test_what_does_not_fit_is_refused(
    arguments: tuple[str, ...], error: type[Exception], message: str, source: Path, tmp_path: Path
) -> None:
    result = compress(source, "-o", tmp_path / "small.onnx", *arguments)
    assert isinstance(result.exception, error), result.output
    assert message in str(result.exception)
    assert not (tmp_path / "small.onnx").exists()


def test_files_of_other_kinds_are_refused(source: Path, tmp_path: Path) -> None:
    for target, message in ((tmp_path / "x.tflite", "no compressed model"), (source, "would replace the source")):
        with pytest.raises(InvalidArgumentError, match=message):
            compressing.compress(source, target, weights="int8")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InvalidArgumentError, match="is not an ONNX model"):
        compressing.compress(tmp_path / "text.onnx", tmp_path / "y.onnx", weights="int8")
    with pytest.raises(InvalidArgumentError, match=r"are for \.onnx"):
        compressing.compress(source, tmp_path / "y.mlpackage", weights="int8", activations="int8")


def test_a_source_that_computes_nothing_but_nan_is_not_compared(tmp_path: Path) -> None:
    """Its agreement was 100%."""
    first = matrix(64, 64)
    first[3] = np.nan
    onnx.save(perceptron(first=first), tmp_path / "model.onnx")
    target = tmp_path / "small.onnx"
    arguments = (tmp_path / "model.onnx", "-o", target, "--weights", "int8")
    result = compress(*arguments)
    assert isinstance(result.exception, UnsupportedError)
    assert "the source's output 'y' is NaN or infinite throughout on all samples" in str(result.exception)
    assert not target.exists()
    result = compress(*arguments, "--force")
    assert result.exit_code == 0, result.output
    assert "0.00%" in result.output
    assert target.exists()


def test_it_is_said_that_few_samples_are_for_both(source: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=matrix(3, 64, 7))
    form = ("--weights", "int8", "--calibrate", tmp_path / "x.npz")
    text = "the same 3 samples are for calibration and comparison"
    assert text in compress(source, "-o", tmp_path / "small.onnx", *form, "--activations", "int8").output
    assert text not in compress(source, "-o", tmp_path / "small.onnx", *form).output


def test_products_of_zeros_are_told(source: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((16, 64), np.float32))
    result = compress(
        source, "-o", tmp_path / "small.onnx", "--weights", "int8", "--activations", "int8", "--calibrate",
        tmp_path / "x.npz",
    )  # fmt: skip
    assert "2 products multiply in floats, since what they read or compute is 0 in all samples" in result.output
    sample = {"x": matrix(4, 64, 7)}
    found, wanted = run(onnx.load(tmp_path / "small.onnx"), sample)[0], run(perceptron(), sample)[0]
    assert np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()


def test_a_full_disk_is_an_error_of_its_own() -> None:
    with pytest.raises(InvalidArgumentError, match="No space left on device; make room"):
        save(perceptron(), Path("/dev/full"))


def test_a_full_disk_for_weights_is_an_error_that_names_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: WeightFile, tensor: TensorProto) -> TensorProto:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(WeightFile, "moved", full)
    with pytest.raises(InvalidArgumentError, match=r"No space left on device\..*TMPDIR.*: make room there"):
        compressing.compress(source, tmp_path / "small.onnx", weights="int8")
    assert not (tmp_path / "small.onnx").exists()


def test_what_protobuf_cannot_hold_goes_beside_the_model(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triune.compression.save._MOST_BYTES_INLINE", 100_000)
    onnx.save(perceptron(first=matrix(64, 2048), second=matrix(2048, 32)), source)
    target = tmp_path / "results" / "small.onnx"
    done = triune.compress(source, target, weights="int8")
    assert [each.name for each in sorted(target.parent.iterdir())] == ["small.onnx", "small.onnx.data"]
    assert done.report.target_bytes == sum(each.stat().st_size for each in target.parent.iterdir())
    sample = {"x": matrix(2, 64, 5)}
    with triune.load(target, "cpu") as small, triune.load(source, "cpu") as whole:
        assert np.allclose(
            small.run(sample)["y"], whole.run(sample)["y"], atol=0.03 * np.abs(whole.run(sample)["y"]).max()
        )


def test_weights_beside_the_model_are_read_and_inlined(source: Path, tmp_path: Path) -> None:
    beside = tmp_path / "beside.onnx"
    onnx.save(
        perceptron(first=matrix(64, 512), second=matrix(512, 32)), beside, save_as_external_data=True,
        location="beside.bin", size_threshold=0,
    )  # fmt: skip
    done = triune.compress(beside, tmp_path / "small.onnx", weights="int4", group=32)
    assert done.report.source_bytes == beside.stat().st_size + (tmp_path / "beside.bin").stat().st_size
    model = onnx.load(tmp_path / "small.onnx", load_external_data=False)
    assert all(each.data_location != TensorProto.EXTERNAL for each in model.graph.initializer)


@pytest.mark.usefixtures("hurried")
def test_the_page_opens_in_a_browser_without_a_network(source: Path, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    name = "</script><b>two"
    model = perceptron()
    model.graph.node[2].name = name
    onnx.save(model, source)
    result = compress(
        source, "-o", tmp_path / "small.onnx", "--weights", "int8", "--activations", "int8", "--max-drop", "0.001%",
        "--force", "--report", page,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    with chromium() as browser, opened(browser, page.as_uri()) as tab:
        expect(tab.get_by_role("heading", name="model.onnx → small.onnx")).to_be_visible()
        expect(tab.get_by_text("agreement of the worst output; 99.9990% is the least")).to_be_visible()
        headings = tab.get_by_role("heading", level=2).all_text_contents()
        assert headings == ["Outputs", "Speed on this machine", "Layers (2)", "Notes"]
        assert tab.get_by_role("cell", name=name, exact=True).count() == 1
        assert tab.get_by_role("row").filter(has_text="cpu").count() == 1
        assert fits(tab)
        tab.set_viewport_size({"width": 420, "height": 800})
        assert fits(tab)
