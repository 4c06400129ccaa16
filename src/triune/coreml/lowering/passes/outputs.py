"""Each output a value of its own, under its own name."""

from collections.abc import Sequence
from typing import Any

from triune.coreml.lowering.mb import Var, mb


def name_outputs(program: Any, names: Sequence[str]) -> None:
    """Given a function whose outputs passes have made one value, or an input, or named otherwise. Result: as declared.

    Args:
        program: its function `main` is changed.
        names: of the outputs, in their order.
    """
    function = program.functions["main"]
    inputs = set(function.inputs.values())
    with function:
        outputs: list[Var] = []
        for value, name in zip(function.outputs, names, strict=True):
            is_own = value not in outputs and value not in inputs and value.op.op_type != "const"
            outputs.append(value if is_own else mb.identity(x=value, name=name))
        function.set_outputs(outputs)
    for value, name in zip(outputs, names, strict=True):
        value.set_name(name)
        value.op.name = name
