"""Find out whether the shapes in a program depend on the values of its inputs. `graph.by_values` does the same for ONNX
models.
"""

from collections.abc import Mapping
from typing import Final

from triune.coreml.mil import Block, Function, Name, Operation

_SIZES: Final = frozenset(
    {
        "k",
        "num_splits",
        "one_hot_vector_size",
        "pad",
        "reps",
        "shape",
        "size",
        "split_sizes",
        "target_size_height",
        "target_size_width",
    }
)
"""The parameters, of any operation, whose values determine the shape of the result."""

_SIZES_OF: Final[Mapping[str, frozenset[str]]] = {
    "non_zero": frozenset({"x"}),
    "range_1d": frozenset({"end", "start", "step"}),
    "slice_by_index": frozenset({"begin", "end", "stride"}),
}


def are_shapes_by_values(function: Function) -> bool:
    """Whether the shape of any value in a function depends on the values of the inputs, not only on their shapes.

    If that is unknown, as for results of loops and conditions, the answer is yes.
    """
    return _decides_shapes(function.block, {each.name for each in function.inputs})


def _decides_shapes(block: Block, varying: set[str]) -> bool:
    """Whether a shape in a block depends on the values of the inputs.

    `varying` has the names of values that depend on the values of the inputs; those of the block are added to it.
    """
    for operation in block.operations:
        is_varying = any(_names_of(operation, parameter) & varying for parameter in operation.inputs)
        sizes = _SIZES | _SIZES_OF.get(operation.op, frozenset())
        is_sized = any(_names_of(operation, parameter) & varying for parameter in sizes)
        if is_sized or operation.op == "while_loop" or (operation.op == "cond" and is_varying):
            return True
        for inner in operation.blocks:
            if _decides_shapes(inner, varying):
                return True
            is_varying = is_varying or bool(varying.intersection(inner.outputs))
        if is_varying and operation.op != "shape":
            varying.update(each.name for each in operation.outputs)
    return False


def _names_of(operation: Operation, parameter: str) -> set[str]:
    return {each.name for each in operation.inputs.get(parameter, ()) if isinstance(each, Name)}
