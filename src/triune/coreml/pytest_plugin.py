"""A plugin for pytest that makes coremltools predict with Triune: `pytest -p triune.coreml.pytest_plugin`.

Tests need no change: checks for a Mac (`utils._is_macos()`) succeed, and `MLModel.predict` works. The header of the
run, or its last line for a quiet run (`-q`), says that the results are Triune's. On Apple's systems nothing changes.
"""

import sys
import warnings
from typing import Any

import pytest

_OPTION = "--coreml-executor"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of pytest that chooses the executor."""
    parser.addoption(
        _OPTION,
        choices=("onnxruntime", "reference"),
        default="onnxruntime",
        help="what computes ML Programs off Apple's systems: ONNX Runtime, or Triune's slow numpy interpreter",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Make coremltools' checks for macOS succeed, before any test is imported."""
    if sys.platform == "darwin":
        return
    with warnings.catch_warnings():
        # Suppress the warning, since the header of the run says the same.
        warnings.simplefilter("ignore")
        # Import here, not at the top of the file: the import itself changes coremltools.
        from triune.coreml import anywhere

        executor: Any = config.getoption(_OPTION)
        anywhere.uninstall()
        anywhere.install(executor)


def pytest_report_header(config: pytest.Config) -> str:
    """Say in the header that results are Triune's."""
    if sys.platform == "darwin":
        return "triune: an Apple system, coremltools predicts with Core ML"
    executor = config.getoption(_OPTION)
    return f"triune: coremltools predicts with Triune ({executor}), not with Core ML; compute plans are predictions"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say at the end of a quiet run, which has no header, that results are Triune's."""
    if sys.platform != "darwin" and terminalreporter.config.get_verbosity() < 0:
        terminalreporter.write_line("triune: coremltools predicted with Triune; these answers are not Core ML's")


def pytest_unconfigure() -> None:
    """Restore coremltools' checks."""
    if sys.platform == "darwin":
        return
    from triune.coreml import anywhere

    anywhere.uninstall()
