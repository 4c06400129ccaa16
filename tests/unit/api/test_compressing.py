"""Compressed programs, and docs/compress.md, which runs as it stands."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import triune
from support.compressible import matrix, perceptron
from support.mil_models import save_classifier
from support.text_models import write_text_model
from triune.cli import app
from triune.core.errors import UnsupportedError
from triune.core.units import Presence

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
