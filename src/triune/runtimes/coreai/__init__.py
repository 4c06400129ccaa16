"""Core AI: Apple's own library, which is always hosted."""

from triune.runtimes.coreai.runtime import CoreAi

__all__ = ["CoreAi"]
