"""Core ML: coremltools on Apple's systems, Triune's own executors elsewhere."""

from triune.runtimes.coreml.runtime import CoreMl

__all__ = ["CoreMl"]
