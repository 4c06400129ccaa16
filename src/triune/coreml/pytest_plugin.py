"""`pytest -p triune.coreml.pytest_plugin`: coremltools predicts with Triune for this run, off Apple's systems.

Tests need not know of it: what asks for a Mac (`utils._is_macos()`, `MLModel.predict`) gets one. The run's header, or
its last line where it is quiet (`-q`), says that answers are Triune's.
"""

import sys
import warnings
from typing import Any

import pytest

_OPTION = "--coreml-executor"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of executor."""
    parser.addoption(
        _OPTION,
        choices=("onnxruntime", "reference"),
        default="onnxruntime",
        help="what computes ML Programs off Apple's systems: ONNX Runtime, or Triune's slow numpy interpreter",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Open the gates before any test is imported."""
    if sys.platform == "darwin":
        return
    with warnings.catch_warnings():
        # The header says the same, once.
        warnings.simplefilter("ignore")
        # Importing it has the effect, so it is imported here and nowhere above.
        from triune.coreml import anywhere

        executor: Any = config.getoption(_OPTION)
        anywhere.uninstall()
        anywhere.install(executor)


def pytest_report_header(config: pytest.Config) -> str:
    """Say whose answers these are."""
    if sys.platform == "darwin":
        return "triune: an Apple system, coremltools predicts with Core ML"
    executor = config.getoption(_OPTION)
    return f"triune: coremltools predicts with Triune ({executor}), not with Core ML; compute plans are predictions"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say it at the end of a quiet run, which has no header."""
    if sys.platform != "darwin" and terminalreporter.config.get_verbosity() < 0:
        terminalreporter.write_line("triune: coremltools predicted with Triune; these answers are not Core ML's")


def pytest_unconfigure() -> None:
    """Close the gates."""
    if sys.platform == "darwin":
        return
    from triune.coreml import anywhere

    anywhere.uninstall()
