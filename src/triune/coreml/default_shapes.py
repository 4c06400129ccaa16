"""Check the default shapes of flexible inputs, which Core ML also computes when it loads a program."""

from triune.core.errors import InvalidArgumentError
from triune.coreml.description import ArrayFeature, FunctionDescription
from triune.coreml.mil import Argument, Constant, Function, Operation, TensorType

_SAME_SHAPE = frozenset(
    {
        "abs",
        "cast",
        "clip",
        "exp",
        "gelu",
        "identity",
        "leaky_relu",
        "log",
        "relu",
        "sigmoid",
        "softmax",
        "sqrt",
        "tanh",
    }
)
"""Operations whose output has the shape of `x`. After other operations, a shape is known only if the program declares
it.
"""


def check_stacks(function: Function, described: FunctionDescription, model: str) -> None:
    """Check that all inputs of each `stack` have the same default shape. Core ML loads no program where they differ.

    That is seen in coremltools' test_stack_dynamic_range_dim, where two ranges have different defaults.

    Args:
        function: a function of the program.
        described: the function's interface, with the default shapes.
        model: the model's name in messages.

    Raises:
        InvalidArgumentError: inputs of a `stack` have different default shapes.
    """
    shapes: dict[str, tuple[int, ...] | None] = {value.name: _fixed(value.type) for value in function.inputs}
    for feature in described.inputs:
        if isinstance(feature.type, ArrayFeature) and feature.type.shape:
            shapes[feature.name] = feature.type.shape
    for operation in function.block.operations:
        if operation.op == "stack":
            found = {shape for each in operation.inputs["values"] if (shape := _shape(each, shapes)) is not None}
            if len(found) > 1:
                several = " and ".join(str(list(shape)) for shape in sorted(found))
                raise InvalidArgumentError(
                    f"'{model}', function '{function.name}', operation '{operation.name}' (stack): its inputs have by "
                    f"default the shapes {several}, and Core ML cannot load such a program: give them one default shape"
                )
        for output in operation.outputs:
            shapes[output.name] = _kept(operation, shapes) or _fixed(output.type)


def _kept(operation: Operation, shapes: dict[str, tuple[int, ...] | None]) -> tuple[int, ...] | None:
    if operation.op not in _SAME_SHAPE or len(operation.inputs.get("x", ())) != 1:
        return None
    return _shape(operation.inputs["x"][0], shapes)


def _shape(argument: Argument, shapes: dict[str, tuple[int, ...] | None]) -> tuple[int, ...] | None:
    return argument.shape if isinstance(argument, Constant) else shapes.get(argument.name)


def _fixed(kind: object) -> tuple[int, ...] | None:
    """A declared shape, if all of its sizes are known; else None."""
    if not isinstance(kind, TensorType) or kind.shape is None or None in kind.shape:
        return None
    return tuple(size for size in kind.shape if size is not None)
