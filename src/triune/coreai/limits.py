"""The limits of an asset's free dimensions, which its metadata have and its program does not."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from triune.core.errors import InvalidArgumentError
from triune.core.tensors import format_shape
from triune.coreai.description import Description
from triune.coreai.lowering.ladders import LADDER
from triune.coreai.lowering.lower import SOURCE_KEY

Limits: TypeAlias = Sequence[Sequence[Any]]
"""The shapes that an input may have, as in the asset's metadata: lists of dimensions, each a size or [lowest,
highest].
"""

_CUSTOM: Final = "creatorDefinedMetadata"


def sources_of(description: Description) -> Mapping[str, Any]:
    """What a conversion recorded of each function, by the function's name; empty for assets of other tools."""
    recorded = description.asset.metadata.get(_CUSTOM)
    sources = cast("dict[str, Any]", recorded).get(SOURCE_KEY) if isinstance(recorded, dict) else None
    return cast("dict[str, Any]", sources) if isinstance(sources, dict) else {}


def limits_of(description: Description, function: str) -> Mapping[str, Limits]:
    """The limits of the inputs of a function, by name, where a conversion recorded them. Those of a variant for one of
    several shapes (`main_of_1x64`) are those of its function.

    Raises:
        InvalidArgumentError: the record is not what a conversion writes.
    """
    sources = sources_of(description)
    name = next((each for each in sources if function.startswith(f"{each}{LADDER}")), function)
    source = sources.get(function, sources.get(name))
    limits: object = cast("dict[str, object]", source).get("limits", {}) if isinstance(source, dict) else {}
    if not isinstance(limits, dict) or not all(map(_are_limits, cast("dict[str, object]", limits).values())):
        raise InvalidArgumentError(
            f"the metadata '{SOURCE_KEY}' of '{description.asset.path.name}' are not what a conversion writes: the "
            f"limits of function '{function}' are {limits!r}"
        )
    return cast("dict[str, Limits]", limits)


def check_limits(name: str, shape: Sequence[int], limits: Limits) -> None:
    """Raise InvalidArgumentError if an input's shape is beyond its limits."""
    if not any(_is_within(shape, choice) for choice in limits):
        told = " or ".join(_format_choice(choice) for choice in limits)
        raise InvalidArgumentError(f"input '{name}' is of shape {format_shape(shape)}; it must be {told}")


def largest_batch(limits: Mapping[str, Limits]) -> int | None:
    """The largest batch that the inputs' limits allow: None without limits, 0 if they allow only one number of rows, or
    not every number from one on.
    """
    largest: list[int] = []
    for each in limits.values():
        rows = [range(low, high + 1) for low, high in (_ends(choice[0]) for choice in each if choice)]
        sizes = 0
        while any(sizes + 1 in sizes_of_one for sizes_of_one in rows):
            sizes = max(sizes_of_one[-1] for sizes_of_one in rows if sizes + 1 in sizes_of_one)
        largest.append(sizes if sizes > 1 else 0)
    return min(largest, default=None)


def _are_limits(limits: object) -> bool:
    def is_dimension(dim: object) -> bool:
        ends = cast("list[object]", dim) if isinstance(dim, list) else [dim, dim]
        return len(ends) == 2 and all(type(end) is int for end in ends)

    return isinstance(limits, list) and all(
        isinstance(choice, list) and all(map(is_dimension, cast("list[object]", choice)))
        for choice in cast("list[object]", limits)
    )


def _ends(dim: int | Sequence[int]) -> tuple[int, int]:
    return (dim, dim) if isinstance(dim, int) else (dim[0], dim[1])


def _is_within(shape: Sequence[int], choice: Sequence[Any]) -> bool:
    return len(shape) == len(choice) and all(
        low <= size <= high for size, (low, high) in zip(shape, map(_ends, choice), strict=True)
    )


def _format_choice(choice: Sequence[Any]) -> str:
    """A shape with ranges, for messages, such as `[1..8,4]`."""
    return f"[{','.join(str(low) if low == high else f'{low}..{high}' for low, high in map(_ends, choice))}]"
