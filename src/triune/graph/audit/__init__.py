"""Foreign compiler passes audited: a program computed before and after each of them, on inputs that reveal faults."""

from triune.graph.audit.compare import Difference, Finding, differences, find_difference
from triune.graph.audit.inputs import Free, Input, InputSet, revealing_inputs
from triune.graph.audit.interface import inputs_of_model

__all__ = [
    "Difference",
    "Finding",
    "Free",
    "Input",
    "InputSet",
    "differences",
    "find_difference",
    "inputs_of_model",
    "revealing_inputs",
]
