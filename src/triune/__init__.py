"""Triune: an inference server for Apple silicon, written in Python."""

__version__ = "0.1.0"
