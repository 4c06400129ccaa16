"""ONNX's node tests with sizes, types, attributes and constants changed by a seeded generator."""

import random

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, ValueInfoProto, numpy_helper

_TYPES = [
    *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16, TensorProto.BOOL),
    *(
        TensorProto.INT64,
        TensorProto.INT32,
        TensorProto.INT8,
        TensorProto.UINT8,
        TensorProto.UINT32,
        TensorProto.STRING,
    ),
]
_NUMBERS = [-(2**63), -(2**31), -5, -3, -2, -1, 0, 1, 2, 3, 4, 7, 100, 2**31, 2**63 - 1]
_REALS = [0.0, -1.0, 0.5, 2.0, 1e-8, 1e30, float("inf"), float("nan")]
_WORDS = ["", "nearest", "linear", "cubic", "sum", "SAME_UPPER", "VALID", "reverse", "bidirectional", "reflect", "odd"]


def mutated(model: ModelProto, seed: str) -> tuple[ModelProto, str]:
    """Copy a model with one to three changes. Returns the copy, and a description of the changes."""
    chance = random.Random(seed)
    copy = ModelProto()
    copy.CopyFrom(model)
    told = [change for change in (_change(copy, chance) for _ in range(chance.randint(1, 3))) if change]
    return copy, "; ".join(told)


def _change(model: ModelProto, chance: random.Random) -> str:
    changes = [_size, _size, _rank, _type, _attribute, _attribute, _attribute, _lost_input, _constant, _declared]
    return chance.choice(changes)(model, chance)


def _value(model: ModelProto, chance: random.Random) -> ValueInfoProto | None:
    values = [value for value in model.graph.input if value.type.HasField("tensor_type")]
    return chance.choice(values) if values else None


def _size(model: ModelProto, chance: random.Random) -> str:
    value = _value(model, chance)
    dims = value.type.tensor_type.shape.dim if value else []
    if not value or not dims:
        return ""
    axis = chance.randrange(len(dims))
    dims[axis].dim_value = chance.choice([-1, 0, 1, 2, 3, 5, 7, dims[axis].dim_value + 1, dims[axis].dim_value * 2])
    return f"dimension {axis} of {value.name} is {dims[axis].dim_value}"


def _rank(model: ModelProto, chance: random.Random) -> str:
    value = _value(model, chance)
    if not value:
        return ""
    dims = value.type.tensor_type.shape.dim
    if dims and chance.random() < 0.5:
        del dims[chance.randrange(len(dims))]
    else:
        dims.add(dim_value=chance.choice([1, 2, 3]))
    return f"{value.name} is of rank {len(dims)}"


def _type(model: ModelProto, chance: random.Random) -> str:
    value = _value(model, chance)
    if not value:
        return ""
    value.type.tensor_type.elem_type = chance.choice(_TYPES)
    return f"{value.name} is {TensorProto.DataType.Name(value.type.tensor_type.elem_type)}"


def _declared(model: ModelProto, chance: random.Random) -> str:
    value = chance.choice(model.graph.output)
    if chance.random() < 0.3:
        value.ClearField("type")
    elif chance.random() < 0.5:
        value.type.tensor_type.ClearField("shape")
    else:
        value.type.tensor_type.shape.dim.add(dim_value=3)
    return f"{value.name} is declared otherwise"


def _attribute(model: ModelProto, chance: random.Random) -> str:
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return ""
    node = chance.choice(nodes)
    place = chance.randrange(len(node.attribute))
    attribute = node.attribute[place]
    name = f"{attribute.name} of {node.op_type}"
    if chance.random() < 0.15:
        del node.attribute[place]
        return f"{name} is left out"
    match attribute.type:
        case AttributeProto.INT:
            attribute.i = chance.choice(_NUMBERS)
            return f"{name} is {attribute.i}"
        case AttributeProto.FLOAT:
            attribute.f = chance.choice(_REALS)
            return f"{name} is {attribute.f}"
        case AttributeProto.STRING:
            attribute.s = chance.choice(_WORDS).encode()
            return f"{name} is {attribute.s!r}"
        case AttributeProto.INTS:
            if attribute.ints and chance.random() < 0.6:
                attribute.ints[chance.randrange(len(attribute.ints))] = chance.choice(_NUMBERS)
            elif attribute.ints and chance.random() < 0.5:
                del attribute.ints[-1]
            else:
                attribute.ints.append(chance.choice(_NUMBERS))
            return f"{name} is {list(attribute.ints)}"
        case _:
            return ""


def _lost_input(model: ModelProto, chance: random.Random) -> str:
    nodes = [node for node in model.graph.node if node.input]
    if not nodes:
        return ""
    node = chance.choice(nodes)
    place = chance.randrange(len(node.input))
    if chance.random() < 0.5:
        del node.input[place:]
    else:
        node.input[place] = ""
    return f"{node.op_type} has not input {place}"


def _constant(model: ModelProto, chance: random.Random) -> str:
    """Replace an integer input by a constant of unusual values, in the input's shape."""
    kinds = {TensorProto.INT64: np.int64, TensorProto.INT32: np.int32}
    values = [value for value in model.graph.input if value.type.tensor_type.elem_type in kinds]
    if not values:
        return ""
    value = chance.choice(values)
    shape = [max(min(dim.dim_value, 8), 0) for dim in value.type.tensor_type.shape.dim]
    dtype = kinds[value.type.tensor_type.elem_type]
    array = np.array([chance.choice(_NUMBERS[2:-2]) for _ in range(int(np.prod(shape)))], dtype).reshape(shape)
    model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    told = f"{value.name} is {array.tolist()}"
    model.graph.input.remove(value)
    return told
