"""Exports models of other frameworks to ONNX by their own exporters. Each exporter is installed by an extra, and
imported only when it is needed.
"""

from triune.api.frameworks.export import exported
from triune.api.frameworks.frameworks import Framework, framework_of

__all__ = ["Framework", "exported", "framework_of"]
