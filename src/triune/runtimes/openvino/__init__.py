"""Runs models on the CPU and on Intel's AMX with OpenVINO."""

from triune.runtimes.openvino.runtime import OpenVino

__all__ = ["OpenVino"]
