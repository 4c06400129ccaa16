"""The recipe of a segment: the recipe of the whole model on the unit, with the segment's own limits of free
dimensions.
"""

from collections.abc import Mapping
from dataclasses import replace

from onnx import ValueInfoProto

from triune.backends.tensor.cut.graph import CutGraph
from triune.backends.tensor.cut.stretches import Choice
from triune.config.model_config import ModelConfig
from triune.config.placement import Recipe, recipe_on
from triune.graph.conversion.shapes import Dim, InputShape, Range, parse_shapes
from triune.graph.split import Piece
from triune.runtimes.machine import Machine


def segment_recipe(
    piece: Piece, choice: Choice, num_threads: int, config: ModelConfig, graph: CutGraph, machine: Machine
) -> Recipe:
    """Make the recipe of a piece.

    Runtimes that convert models need limits for free dimensions (`coreml.shapes`). A dimension of a piece gets the
    limits of the dimension of the same name in the model's inputs, or of the batch. A dimension without such a name
    gets the limits of the only named dimension with the same size in the sample.

    Args:
        piece: the piece.
        choice: the unit and precision in which the piece is computed.
        num_threads: the CPU threads of one run.
        config: the model's configuration.
        graph: the whole graph, whose inputs have names for free dimensions.
        machine: the machine with the runtimes.

    Raises:
        InvalidArgumentError: the config's limits cannot be read.
        UnsupportedError: no runtime serves the unit.
    """
    recipe = recipe_on(choice.unit, num_threads, config, machine)
    options = dict(recipe.options)
    if choice.is_fp32:
        options[f"{recipe.runtime}.precision"] = "fp32"
    name = f"{recipe.runtime}.shapes"
    if name in machine.runtimes[recipe.runtime].option_names:
        limits = _texts(
            piece, parse_shapes([each for each in options.pop(name, "").split(";") if each.strip()]), config, graph
        )
        if limits:
            options[name] = limits
    return replace(recipe, options=tuple(sorted(options.items())))


def _texts(piece: Piece, given: Mapping[str, InputShape], config: ModelConfig, graph: CutGraph) -> str:
    """The limits of the piece's free dimensions, in the form of the runtime's option `shapes`."""
    named: dict[str, Dim] = {}
    by_size: dict[int, set[str]] = {}
    rows = config.batching.max_batch_size
    for value in graph.model.graph.input:
        dims = value.type.tensor_type.shape.dim
        shape = given.get(value.name)
        for axis, dim in enumerate(dims):
            if not dim.dim_param:
                continue
            if value.name in graph.sample:
                by_size.setdefault(graph.sample[value.name].shape[axis], set()).add(dim.dim_param)
            if shape is not None and not shape.is_enumerated and len(shape.choices[0]) == len(dims):
                named[dim.dim_param] = shape.choices[0][axis]
            elif axis == 0 and rows:
                named.setdefault(dim.dim_param, 1 if rows == 1 else Range(1, rows))
    # Leave out sizes that two named dimensions have in the sample: which of the names is meant is not known.
    sized = {size: named[name] for size, (name, *more) in by_size.items() if not more and name in named}
    texts: list[str] = []
    for value in piece.model.graph.input:
        shape = given.get(value.name) or _limited(value, named, sized, graph)
        if shape is not None:
            texts.append(f"{value.name}={'|'.join(_text(each) for each in shape.choices)}")
    return ";".join(texts)


def _limited(
    value: ValueInfoProto, named: Mapping[str, Dim], sized: Mapping[int, Dim], graph: CutGraph
) -> InputShape | None:
    """The shape of an input whose free dimensions all have limits; None if none is free, or if one has no limits."""
    dims = value.type.tensor_type.shape.dim
    array = graph.values.get(value.name)
    found = [
        dim.dim_value
        if dim.HasField("dim_value")
        else named.get(dim.dim_param) or (sized.get(array.shape[axis]) if array is not None else None)
        for axis, dim in enumerate(dims)
    ]
    if all(dim.HasField("dim_value") for dim in dims):
        return None
    known = tuple(each for each in found if each is not None)
    return InputShape((known,)) if len(known) == len(found) else None


def _text(dims: tuple[Dim, ...]) -> str:
    return ",".join(f"{dim.low}..{dim.high}" if isinstance(dim, Range) else str(dim) for dim in dims)
