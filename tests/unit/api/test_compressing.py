"""docs/compress.md runs as it stands."""

import re
import shlex
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from support.compressible import perceptron
from triune.cli import app

PAGE = (Path(__file__).parents[3] / "docs/compress.md").read_text()


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("coremltools")
    monkeypatch.chdir(tmp_path)
    onnx.save(perceptron(), "model.onnx")
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
    assert num_commands == 8
    assert {"small.mlpackage", "small.onnx", "report.html", "report.json", "kept.onnx"} <= {
        each.name for each in tmp_path.iterdir()
    }
