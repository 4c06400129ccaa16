"""Contradictions of ONNX Runtime's own operators (com.microsoft), for which ONNX has neither schemas nor inference."""

from triune.graph.contradictions.microsoft.rules import wrong_at

DOMAIN = "com.microsoft"

__all__ = ["DOMAIN", "wrong_at"]
