"""OpenVINO."""

from triune.runtimes.openvino.runtime import OpenVino

__all__ = ["OpenVino"]
