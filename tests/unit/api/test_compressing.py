"""Compressed programs, and docs/compress.md, which runs as it stands."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

import triune
from support.compressible import matrix, model_of, perceptron
from support.mil_models import save_classifier
from support.text_models import write_text_model
from triune.api.compressing import programs
from triune.cli import app
from triune.core.errors import UnsupportedError
from triune.core.units import Presence
from triune.graph.conversion.shapes import parse_shapes

PAGE = (Path(__file__).parents[3] / "docs/compress.md").read_text()


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("coremltools")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("triune.api.timing._SECONDS", 0.02)
    onnx.save(perceptron(), "model.onnx")
    write_text_model(tmp_path / "decoder")
    Path("text.txt").write_text(PAGE)
    num_commands = 0
    for language, body in re.findall(r"^```(python|sh)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(body, {})
            continue
        for line in body.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "triune"
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, (line, result.output, result.exception)
            num_commands += 1
    assert num_commands == 10
    assert {"small.mlpackage", "small.onnx", "report.html", "report.json", "kept.onnx"} <= {
        each.name for each in tmp_path.iterdir()
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    model = perceptron(first=matrix(128, 256), second=matrix(256, 64, 1))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 128
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


PACKED = [
    ({"weights": "int8"}, "constexpr_blockwise_shift_scale", 0.3),
    ({"weights": "int4", "group": 32, "symmetric": False}, "constexpr_blockwise_shift_scale", 0.2),
    ({"weights": "palette", "bits": 4}, "constexpr_lut_to_dense", 0.2),
    ({"weights": "palette", "bits": 2, "group": 16, "force": True}, "constexpr_lut_to_dense", 0.12),
    ({"weights": "sparse", "sparsity": 0.3}, "constexpr_sparse_to_dense", 0.42),
]


@pytest.mark.parametrize(("options", "operation", "most"), PACKED)
def test_packages_hold_the_form(options: Mapping[str, Any], operation: str, most: float, source: Path) -> None:
    pytest.importorskip("coremltools")
    target = source.with_name("small.mlpackage")
    np.savez(source.with_name("x.npz"), x=matrix(4, 128, 5))
    done = triune.compress(source, target, shapes={"x": "1,128"}, calibrate=source.with_name("x.npz"), **options)
    whole = b"".join(each.read_bytes() for each in target.rglob("*.mlmodel"))
    assert whole.count(operation.encode()) >= 2
    # What describes the model takes some kilobytes, whatever its weights are.
    assert done.report.target_bytes < most * done.report.source_bytes + 4096
    # The program answers as the numbers that its weights stand for, but for fp16.
    plain = source.with_name("small.onnx")
    triune.compress(source, plain, calibrate=source.with_name("x.npz"), **options)
    with triune.load(target) as program, triune.load(plain) as model:
        x = {"x": matrix(1, 128, 5)}
        assert np.allclose(program.run(x)["y"], model.run(x)["y"], atol=0.02 * np.abs(model.run(x)["y"]).max())


def test_assets_hold_look_up_tables(source: Path) -> None:
    pytest.importorskip("coreai")
    target = source.with_name("small.aimodel")
    done = triune.compress(source, target, weights="palette", bits=4, shapes={"x": "1,128"})
    assert done.report.target_bytes < 0.2 * done.report.source_bytes
    # A table of 16 entries for each 8 channels; of all together there are more than 256, which no index holds.
    grouped = triune.compress(source, target, weights="palette", bits=4, group=8, shapes={"x": "1,128"})
    assert grouped.report.target_bytes < 0.22 * grouped.report.source_bytes
    assert grouped.report.agreement > 0.97


def test_packages_are_compressed_too(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    package, target = tmp_path / "model.mlpackage", tmp_path / "small.mlpackage"
    triune.convert(source, package, precision="fp16", shapes={"x": (1, 128)}, verify=False)
    done = triune.compress(package, target, weights="int8")
    assert done.report.target_bytes < 0.6 * done.report.source_bytes
    assert done.report.agreement > 0.999
    classifier = save_classifier(tmp_path)
    with pytest.raises(UnsupportedError, match="is no array"):
        triune.compress(classifier, target, weights="int8")


@pytest.mark.parametrize("ending", ["mlpackage", "aimodel"])
@pytest.mark.parametrize("origin", ["mlpackage", "aimodel"])
def test_programs_keep_the_limits_of_their_sources(origin: str, ending: str, tmp_path: Path) -> None:
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    model, source = tmp_path / "m.onnx", tmp_path / f"m.{origin}"
    target, samples = tmp_path / f"small.{ending}", tmp_path / "samples.npz"
    onnx.save(model_of([node], {"x": (onnx.TensorProto.FLOAT, ["n", 64])}, ["y"], {"w": matrix(64, 40)}), model)
    np.savez(samples, x=matrix(8, 64, 5))
    triune.convert(model, source, shapes={"x": "2..4,64"})

    for calibrate in (None, samples):
        done = triune.compress(source, target, weights="int8", calibrate=calibrate)
        assert done.report.agreement > 0.999
        assert programs.limits_of(target) == parse_shapes(["x=2..4,64"])
        with triune.load(target) as program:
            assert program.run({"x": matrix(4, 64)})["y"].shape == (4, 40)

    triune.compress(source, target, weights="int8", shapes={"x": "1..8,64"})
    with triune.load(target) as program:
        assert program.run({"x": matrix(8, 64)})["y"].shape == (8, 40)


FORMS = [
    {"weights": "int8"},
    {"weights": "int4", "group": 32, "symmetric": False},
    {"weights": "palette", "bits": 4, "group": 8},
    {"weights": "int8", "activations": "int8"},
    {"weights": "int8", "activations": "dynamic"},
]


@pytest.mark.parametrize("options", FORMS)
def test_all_units_compute_every_form(options: Mapping[str, Any], source: Path) -> None:
    small = source.with_name("small.onnx")
    triune.compress(source, small, force=True, **options)
    x = {"x": matrix(3, 128, 5)}
    units = [each.unit.value for each in triune.units() if each.presence is not Presence.ABSENT]
    answers: dict[str, Any] = {}
    for unit in units:
        if unit != "ane":  # Core ML takes no free dimension.
            with triune.load(small, unit) as model:
                answers[unit] = model.run(x)["y"]
    for unit, answer in answers.items():
        # amx computes in bf16, and ONNX Runtime rounds activations to 8 bits before weights of 8 bits.
        assert np.abs(answer - answers["cpu"]).max() < 0.03 * np.abs(answers["cpu"]).max(), unit


@pytest.mark.parametrize("kind", ["int8", "dynamic"])
def test_many_matrices_at_once_multiply_in_floats(kind: Any, tmp_path: Path) -> None:
    """ONNX Runtime cannot load a product of integers of such weights with a scale for each channel."""
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    rng = np.random.default_rng(3)
    weights = {"a": rng.standard_normal((3, 16, 24)), "b": rng.standard_normal((24, 8))}
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "a"], ["c"], name="many"),
        onnx.helper.make_node("MatMul", ["c", "b"], ["y"], name="one"),
    ]
    floats = {name: each.astype(np.float32) for name, each in weights.items()}
    onnx.save(model_of(nodes, {"x": (onnx.TensorProto.FLOAT, [3, 4, 16])}, ["y"], floats), source)
    report = triune.compress(source, target, weights="int8", activations=kind, force=True).report
    assert any("1 MatMuls of many matrices at once multiply in floats" in each for each in report.notes)
    x = rng.standard_normal((3, 4, 16)).astype(np.float32)
    # With its own optimizations, which are those that failed.
    expected, found = (onnxruntime.InferenceSession(each).run(None, {"x": x})[0] for each in (source, target))
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())


@pytest.mark.parametrize("ending", ["mlpackage", "aimodel"])
@pytest.mark.parametrize("options", [{"weights": "int8"}, {"weights": "palette", "bits": 8}])
def test_sums_beyond_fp16_stay_finite_with_compressed_weights(
    options: Mapping[str, Any], ending: str, tmp_path: Path
) -> None:
    """The second layer's sums are beyond 65504, and its quantized weights are no constants."""
    rng = np.random.default_rng(0)
    kernels = {"a": (32, 16, 3, 3), "b": (64, 32, 3, 3), "c": (24, 64, 1, 1)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in kernels.items()}
    weights["b"] *= 40
    nodes = [
        onnx.helper.make_node("Conv", ["x", "a"], ["d"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Relu", ["d"], ["e"]),
        onnx.helper.make_node("Conv", ["e", "b"], ["f"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Relu", ["f"], ["g"]),
        onnx.helper.make_node("Conv", ["g", "c"], ["y"]),
    ]
    source, target = tmp_path / "source.onnx", tmp_path / f"target.{ending}"
    onnx.save(model_of(nodes, {"x": (onnx.TensorProto.FLOAT, [1, 16, 9, 9])}, ["y"], weights), source)
    triune.compress(source, target, **options)
    x = rng.standard_normal((1, 16, 9, 9)).astype(np.float32)
    expected = triune.predict(source, {"x": x}, "cpu")["y"]
    (found,) = triune.predict(target, {"x": x}, "ane").values()
    assert np.abs(expected).max() > 65504
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


def test_what_fp16_does_not_hold_is_found_by_a_comparison_or_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is compared as the Neural Engine rounds: `cpu` would compute it in fp32."""
    monkeypatch.setattr("triune.graph.half.overflow.may_leave", lambda *_: False)
    weights = {"a": np.full((32, 32), 3e4, np.float32)}
    model = model_of(
        [onnx.helper.make_node("MatMul", ["x", "a"], ["b"]), onnx.helper.make_node("Sigmoid", ["b"], ["c"]),
         onnx.helper.make_node("Mul", ["b", "c"], ["y"])],
        {"x": (onnx.TensorProto.FLOAT, [4, 32])}, ["y"], weights,
    )  # fmt: skip
    source, target = tmp_path / "source.onnx", tmp_path / "target.mlpackage"
    onnx.save(model, source)
    with monkeypatch.context() as patch:
        convert = programs.onnx_to_coreml
        patch.setattr(programs, "onnx_to_coreml", lambda *given: convert(*given[:-1], None))
        with pytest.raises(UnsupportedError, match="NaN or infinities"):
            triune.compress(source, target, weights="int8")
    assert not target.exists()

    notes = triune.compress(source, target, weights="int8").report.notes

    assert any(re.search("fp16 is not exact enough for .*: MatMul .* compute in fp32", note) for note in notes)
    x = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    expected = triune.predict(source, {"x": x}, "cpu")["y"]
    (found,) = triune.predict(target, {"x": x}, "ane").values()
    np.testing.assert_allclose(found, expected, rtol=0.02)


@pytest.mark.parametrize("ending", ["mlpackage", "aimodel"])
@pytest.mark.parametrize("is_calibrated", [True, False])
def test_deep_residual_sums_beyond_fp16_keep_their_layers_precise(
    is_calibrated: bool, ending: str, tmp_path: Path
) -> None:
    """A network without norms: each block doubles what it adds to, and no layer's weights alone are to blame."""
    rng = np.random.default_rng(3)
    weights: dict[str, Any] = {"first": rng.standard_normal((16, 3, 3, 3)).astype(np.float32)}
    nodes = [onnx.helper.make_node("Conv", ["x", "first"], ["o0"], name="stem", pads=[1, 1, 1, 1])]
    for i in range(8):
        for j in (1, 2):
            weights[f"w{i}{j}"] = (rng.standard_normal((16, 16, 3, 3)) * (2 / 144) ** 0.5).astype(np.float32)
        nodes += [
            onnx.helper.make_node("Conv", [f"o{i}", f"w{i}1"], [f"a{i}"], name=f"a{i}", pads=[1, 1, 1, 1]),
            onnx.helper.make_node("Relu", [f"a{i}"], [f"b{i}"]),
            onnx.helper.make_node("Conv", [f"b{i}", f"w{i}2"], [f"c{i}"], name=f"c{i}", pads=[1, 1, 1, 1]),
            onnx.helper.make_node("Add", [f"o{i}", f"c{i}"], [f"s{i}"]),
            onnx.helper.make_node("Relu", [f"s{i}"], [f"o{i + 1}"]),
        ]
    nodes.append(onnx.helper.make_node("GlobalAveragePool", ["o8"], ["y"]))
    source, target, samples = tmp_path / "source.onnx", tmp_path / f"target.{ending}", tmp_path / "samples.npz"
    onnx.save(model_of(nodes, {"x": (onnx.TensorProto.FLOAT, [1, 3, 8, 8])}, ["y"], weights), source)
    pictures = (rng.random((8, 3, 8, 8)) * 255 * 8).astype(np.float32)
    np.savez(samples, x=pictures)
    expected = triune.predict(source, {"x": pictures[:1]}, "cpu")["y"]
    assert np.abs(expected).max() > 65504

    done = triune.compress(source, target, weights="int8", calibrate=samples if is_calibrated else None)

    assert done.report.agreement > 0.999
    if is_calibrated:
        assert any("fp16 is not exact enough for yours" in note for note in done.report.notes)
        (found,) = triune.predict(target, {"x": pictures[:1]}, "ane").values()
        np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
    else:
        assert any("fp16 is right for generated inputs up to" in note for note in done.report.notes)


@pytest.mark.parametrize(("shape", "rows"), [("2,64", 2), ("2..4,64", 2), ("1..4,64", 1), ("4,64|2,64", 2)])
def test_samples_have_as_many_rows_as_a_shape_allows(shape: str, rows: int, tmp_path: Path) -> None:
    source, target, samples = tmp_path / "source.onnx", tmp_path / "target.mlpackage", tmp_path / "samples.npz"
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    onnx.save(model_of([node], {"x": (onnx.TensorProto.FLOAT, ["n", 64])}, ["y"], {"w": matrix(64, 40)}), source)
    np.savez(samples, x=matrix(16, 64, 5))
    report = triune.compress(source, target, weights="int8", calibrate=samples, shapes={"x": shape}).report
    assert sum(int(each) for each in re.findall(r"\d+", report.samples)) == 16 // rows, "held out and used"
