"""The reference executor: ML Programs in numpy, slow but simple. Each file holds one family of operations."""

from triune.coreml.interpreter.interpreter import Interpreter

__all__ = ["Interpreter"]
