"""Find passes of vendors' compilers that change outputs: run a program before and after each pass on many kinds of
inputs.
"""

from triune.graph.audit.compare import Difference, Finding, differences, find_difference
from triune.graph.audit.inputs import Free, Input, InputSet, revealing_inputs
from triune.graph.audit.interface import inputs_of_model
from triune.graph.audit.large import SizedInputs, sized_inputs
from triune.graph.audit.narrow import narrow_inputs

__all__ = [
    "Difference",
    "Finding",
    "Free",
    "Input",
    "InputSet",
    "SizedInputs",
    "differences",
    "find_difference",
    "inputs_of_model",
    "narrow_inputs",
    "revealing_inputs",
    "sized_inputs",
]
