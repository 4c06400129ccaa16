"""Core ML: coremltools on Apple's systems, Triune's executors on others."""

from triune.runtimes.coreml.runtime import CoreMl

__all__ = ["CoreMl"]
