"""Core AI: Apple's library, which always runs in a separate process."""

from triune.runtimes.coreai.runtime import CoreAi

__all__ = ["CoreAi"]
