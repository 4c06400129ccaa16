"""The reference executor: ML Programs computed with numpy, slowly and obviously. One family of operations a file."""

from triune.coreml.interpreter.interpreter import Interpreter

__all__ = ["Interpreter"]
