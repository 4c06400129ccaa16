"""Imports OpenVINO's module without its model converter."""

import contextlib
import importlib
import sys
from collections.abc import Generator
from typing import Any, cast


@contextlib.contextmanager
def _no_converter() -> Generator[None]:
    """Prevent the import of OpenVINO's converter, which is not needed and sends telemetry."""
    modules = cast("dict[str, object]", sys.modules)
    converter = "openvino.tools.ovc"
    is_first = "openvino" not in modules
    if is_first:
        modules[converter] = None
    try:
        yield
    finally:
        if is_first:
            modules.pop(converter, None)


with _no_converter():
    # `Any`, since the type hints of OpenVINO are incomplete.
    library: Any = importlib.import_module("openvino")
    operators: Any = importlib.import_module("openvino.op")
    opset: Any = importlib.import_module("openvino.opset15")
    onnx_frontend: Any = importlib.import_module("openvino.frontend.onnx")
