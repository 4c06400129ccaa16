"""A pass that gives each output its declared name, and its own value if several outputs share one."""

from collections.abc import Sequence
from typing import Any

from triune.coreml.lowering.mb import Var, mb
from triune.coreml.lowering.passes.mil_pass import MilPass


class NameOutputs(MilPass):
    """Give each output its declared name, and a value of its own.

    Passes may have renamed outputs, or merged two that were equal.
    """

    name = "name_outputs"

    def __init__(self, names: Sequence[str]) -> None:
        """`names`: the declared names of the outputs, in order."""
        self._names = names

    def change(self, program: Any) -> None:
        """Name the outputs of the function `main` of `program`, which is changed in place."""
        function = program.functions["main"]
        inputs = set(function.inputs.values())
        with function:
            outputs: list[Var] = []
            for value, name in zip(function.outputs, self._names, strict=True):
                is_own = value not in outputs and value not in inputs and value.op.op_type != "const"
                outputs.append(value if is_own else mb.identity(x=value, name=name))
            function.set_outputs(outputs)
        for value, name in zip(outputs, self._names, strict=True):
            value.set_name(name)
            value.op.name = name
