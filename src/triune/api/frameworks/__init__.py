"""Models of other frameworks, made ONNX by their own exporters. Each is an extra, and imported when it is needed."""

from triune.api.frameworks.export import exported
from triune.api.frameworks.frameworks import Framework, framework_of

__all__ = ["Framework", "exported", "framework_of"]
