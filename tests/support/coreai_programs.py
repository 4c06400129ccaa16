"""Core AI programs for tests, built with the dialect; each operation as a sample with its inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.coreai.library import Value, authoring, dialect, ir
from triune.coreai.lowering.values import tensor_type

Array = NDArray[Any]
Build = Callable[..., Any]

ops = dialect


@dataclass(frozen=True)
class Sample:
    """A program of a few operations.

    Attributes:
        build: makes the output values from the input values and the handles of the states.
        inputs: the inputs by name.
        states: the values of the states before the call.
        is_static: whether the program supports only fixed sizes.
        places: for each input, the dimensions that stay fixed in the dynamic version of the program.
    """

    build: Build
    inputs: Mapping[str, Array]
    states: Mapping[str, Array] = field(default_factory=dict)
    is_static: bool = False
    places: Mapping[str, Sequence[int]] = field(default_factory=dict)


def kind_of(array: Array, *, is_dynamic: bool = False, known: Sequence[int] = ()) -> Any:
    shape = [size if not is_dynamic or place in known else None for place, size in enumerate(array.shape)]
    return tensor_type(shape, array.dtype)


def save(sample: Sample, path: Path, *, is_dynamic: bool = False, around: Callable[[Any], None] | None = None) -> Path:
    """Save the sample as an asset. `around` may add operations to the module before the function."""
    module = authoring.Module.create()
    with module:
        if around is not None:
            around(module)
        kinds = [
            kind_of(array, is_dynamic=is_dynamic, known=sample.places.get(name, ()))
            for name, array in sample.inputs.items()
        ]
        kinds += [dialect.HandleType.get(kind_of(array)) for array in sample.states.values()]
        add_graph("main", [*sample.inputs, *sample.states], kinds, sample.build, states=list(sample.states))
    authoring.AIProgram(module).save_asset(path)
    return path


def add_graph(
    name: str,
    names: Sequence[str],
    kinds: Sequence[Any],
    build: Build,
    *,
    states: Sequence[str] = (),
    result_names: Sequence[str] | None = None,
    **named: Any,
) -> Any:
    """Add a graph to the current module. Its output tensors are called y0, y1 and so on, and its tokens have the names
    of the states.
    """
    graph = dialect.GraphOp(name, list(kinds), [], list(names) or None, None, **named)
    with graph.block, ir.Location.unknown():
        made = build(*graph.arguments)
        values: list[Value] = list(made) if isinstance(made, (list, tuple)) else [made]
        dialect.output(values)
    graph.attributes["function_type"] = ir.TypeAttr.get(
        ir.FunctionType.get(list(kinds), [value.type for value in values])
    )
    tokens, tensors = iter(states), iter(range(len(values)))
    called = result_names or [
        next(tokens) if str(value.type).startswith("!coreai.token") else f"y{next(tensors)}" for value in values
    ]
    graph.res_attrs = ir.ArrayAttr.get([_name(each) for each in called])
    return graph


def image_type(name: str, height: int, width: int) -> Any:
    """An image type whose pixel format has this name in the dialect's `FourCC`."""
    code = dialect.FourCCAttr.get_enum(enum_value=getattr(dialect.FourCC, name))
    return dialect.ImageType.get(fourcc_attr=code, height=height, width=width)


def save_graph(path: Path, names: Sequence[str], kinds: Callable[[], Sequence[Any]], build: Build) -> Path:
    """Save an asset with one function, whose inputs have any types. `kinds` makes these types within the module."""
    module = authoring.Module.create()
    with module:
        add_graph("main", names, kinds(), build)
    authoring.AIProgram(module).save_asset(path)
    return path


def fill(region: Any, kinds: Sequence[Any], build: Build) -> None:
    """Add a block to an operation's region. `build` makes the values that the block returns."""
    block = region.blocks.append(*kinds, arg_locs=[ir.Location.unknown()] * len(kinds))
    with ir.InsertionPoint(block):
        dialect.yield_(build(*block.arguments))


def grouped(build: Build, kinds: Callable[[Sequence[Any]], Sequence[Any]] = list) -> Build:
    """An isolated group with the operations that `build` makes. `kinds` maps the operands' types to the results'
    types.
    """

    def added(*values: Any) -> list[Value]:
        given = [value.type for value in values]
        group = dialect.IsolatedGroupOp(kinds(given), list(values), "Interpreter")
        fill(group.regions[0], given, build)
        return list(group.results)

    return added


def _name(name: str) -> Any:
    return ir.DictAttr.get({"coreai.name": ir.StringAttr.get(name)} if name else {})


_RANDOM = np.random.default_rng(3)


def numbers(*shape: int, low: float = -2.0, high: float = 2.0, dtype: Any = np.float32) -> Array:
    return _RANDOM.uniform(low, high, shape).astype(dtype)


def integers(*shape: int, low: int = -7, high: int = 8, dtype: Any = np.int32) -> Array:
    return _RANDOM.integers(low, high, shape).astype(dtype)


def one(name: str, **named: Any) -> Build:
    """Make a `build` function that applies one operation of the dialect to all inputs."""
    return lambda *values: getattr(ops, name)(*values, **named)


def uints(*sizes: int) -> Array:
    return np.array(sizes, np.uint32)


def ints(*sizes: int) -> Array:
    return np.array(sizes, np.int32)


def axis(place: int) -> Any:
    return np.int32(place)


def packed(array: Array, word: str) -> Any:
    """A constant of an element type smaller than a byte, packed as in files: the first element in the lowest bits."""
    bits = int(word[2:])
    each = np.unpackbits(array.astype(np.int8).view(np.uint8).reshape(-1, 1), axis=1, bitorder="little")[:, :bits]
    data = np.packbits(each.reshape(-1), bitorder="little")
    kind = ir.RankedTensorType.get(array.shape, ir.Type.parse(word))
    return ops.ConstantOp(value=ir.DenseResourceElementsAttr.get_from_buffer(data, "packed", kind)).result
