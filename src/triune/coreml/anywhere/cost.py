"""The cost of an operation relative to the others of its function: an estimate, not a measurement."""

import math

from triune.coreml.anywhere.placement import Values, argument_names, num_elements
from triune.coreml.mil import Operation


def work_of(operation: Operation, values: Values) -> int:
    """The number of multiply-adds of a convolution or matrix product, else of the elements read and written.

    Unknown dimensions count as 1, and the body of a loop counts once.
    """
    num_outputs = sum(num_elements(each.type) for each in operation.outputs)
    weight = values.tensor(operation, "weight")
    shape = [size or 1 for size in weight.shape or ()] if weight else []
    match operation.op:
        case "conv" if shape:
            return num_outputs * math.prod(shape[1:])
        case "conv_transpose" if shape:
            x = values.tensor(operation, "x")
            return num_elements(x) * math.prod(shape[1:])
        case "linear" if shape:
            return num_outputs * shape[-1]
        case "matmul":
            x = values.tensor(operation, "x")
            dims = (x.shape if x else None) or (1,)
            return num_outputs * (dims[-1] or 1)
        case _:
            return num_outputs + sum(num_elements(values.types.get(name)) for name in argument_names(operation))
