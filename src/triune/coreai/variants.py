"""The functions of an asset that compute one function: itself, or a variant for each of the fixed shapes for which it
was converted (`main_of_1x64`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from triune.core.errors import NotFoundError
from triune.core.tensors import TensorSpec, format_shape
from triune.coreai.description import Description, Function
from triune.coreai.limits import sources_of
from triune.coreai.lowering.ladders import LADDER


def variants_of(description: Description, function: str | None) -> tuple[str, Sequence[Function]]:
    """Choose what to run.

    Args:
        description: the asset.
        function: the function's name; None for "main" or the only function.

    Returns:
        the name of the function, and the functions that compute it: one, or a variant for each shape.

    Raises:
        NotFoundError: the asset has no such function.
    """
    functions = {each.name: each for each in description.functions}
    sources = sources_of(description)
    is_main = "main" in {*functions, *sources} or len(functions) != 1
    wanted = function or ("main" if is_main else next(iter(functions)))
    if wanted in functions:
        return wanted, [functions[wanted]]
    found = [each for each in description.functions if wanted in sources and each.name.startswith(f"{wanted}{LADDER}")]
    if not found:
        told = ", ".join(f"'{name}'" for name in sorted({*sources, *functions})) or "none"
        raise NotFoundError(f"'{description.asset.path.name}' has no function '{wanted}'; it has {told}")
    return wanted, found


def fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a tensor of this shape is one of the shapes `wanted`, in which -1 is any size."""
    return len(shape) == len(wanted) and all(size in (-1, have) for have, size in zip(shape, wanted, strict=True))


def no_variant(where: str, shapes: Mapping[str, Sequence[int]], variants: Sequence[Sequence[TensorSpec]]) -> str:
    """The message that none of the variants of a function, given by their inputs, takes inputs of these shapes."""
    told = ", ".join(f"{name} {format_shape(shape)}" for name, shape in shapes.items())
    known = "; ".join(", ".join(f"{spec.name} {format_shape(spec.shape)}" for spec in each) for each in variants)
    return f"{where} has no function for the shapes {told}; it has {known}"


def merged(variants: Sequence[Sequence[TensorSpec]]) -> tuple[TensorSpec, ...]:
    """Merge the specifications of tensors from variants, which must have one rank: a dimension is free if the variants
    differ in it.
    """
    found: list[TensorSpec] = []
    for specs in zip(*variants, strict=True):
        sizes = zip(*(spec.shape for spec in specs), strict=True)
        found.append(replace(specs[0], shape=tuple(each[0] if len(set(each)) == 1 else -1 for each in sizes)))
    return tuple(found)
