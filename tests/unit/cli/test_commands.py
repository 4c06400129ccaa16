"""The commands of `triune`, imported when they are asked for."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from triune.cli import app


@pytest.mark.parametrize("name", ["serve", "demo", "units", "models", "infer", "convert", "predict"])
def test_every_command_has_its_help(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert f"{name} [OPTIONS]" in result.output


def test_the_help_names_every_command_with_what_it_does() -> None:
    output = CliRunner().invoke(app, ["--help"]).output
    assert "Serve a model repository" in output
    assert "Convert ONNX" in output


def test_an_unknown_command_is_refused_by_name() -> None:
    result = CliRunner().invoke(app, ["serv"])
    assert result.exit_code == 2
    assert "serv" in result.output


def test_a_server_imports_no_converter() -> None:
    code = "import sys, triune.cli.serve; print([name for name in sys.modules if 'lowering' in name])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
