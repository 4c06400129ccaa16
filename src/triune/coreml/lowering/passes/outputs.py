"""Each output a value of its own, under its own name."""

from collections.abc import Sequence
from typing import Any

from triune.coreml.lowering.mb import Var, mb
from triune.coreml.lowering.passes.mil_pass import MilPass


class NameOutputs(MilPass):
    """Given outputs that passes have merged, made inputs, or renamed. Result: each a value of its own, as declared."""

    name = "name_outputs"

    def __init__(self, names: Sequence[str]) -> None:
        """`names` are those of the outputs, in their order."""
        self._names = names

    def change(self, program: Any) -> None:
        """Changes the function `main` of `program`."""
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
