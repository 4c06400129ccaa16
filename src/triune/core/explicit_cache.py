"""Makes the inputs of a decoder with an explicit cache of a fixed size: see `engine.models.explicit` for its graph."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError

_KEYS: Final = "key_cache_"
_VALUES: Final = "value_cache_"


@dataclass(frozen=True, slots=True)
class ExplicitSize:
    """The sizes of a decoder's graph with an explicit cache.

    Attributes:
        context: the number of tokens that the cache can hold.
        tokens: the number of new tokens in a call.
    """

    context: int
    tokens: int

    def __post_init__(self) -> None:
        if not 1 <= self.tokens <= self.context:
            raise InvalidArgumentError(
                f"a call of {self.tokens} tokens with a cache of {self.context}: it takes from 1 to {self.context}"
            )


def visible_name(window: int) -> str:
    """The name of the input with the attention mask for layers with a sliding window of `window` tokens; 0 means no
    window.
    """
    return f"visible_{window}" if window else "visible"


def windows_of(names: Iterable[str]) -> dict[str, int]:
    """Find the attention masks (see `visible_name`) among the inputs of a graph. Returns the window of each mask, in
    tokens, by the mask's name.
    """
    known = visible_name(0)
    return {name: int(name.removeprefix(known).lstrip("_") or 0) for name in names if name.startswith(known)}


def cache_names(layer: int) -> tuple[str, str]:
    """The names of the inputs of a layer's keys and values."""
    return f"{_KEYS}{layer}", f"{_VALUES}{layer}"


def is_cache(name: str) -> bool:
    """Whether the input with this name is the cache of a layer's keys or values."""
    return name.startswith((_KEYS, _VALUES))


def new_name(cache: str) -> str:
    """The name of the graph's output that is the content of the input `cache` in the next call."""
    return f"{cache}_new"


def given_for(
    size: ExplicitSize, ids: NDArray[np.int64], past: int, windows: Mapping[str, int], wanted: int
) -> dict[str, Array]:
    """Make the inputs of a call, except for the caches.

    Args:
        size: the sizes of the graph.
        ids: INT64 [n], the new tokens, at most `size.tokens`.
        past: the number of tokens in the cache.
        windows: the window of each attention mask among the graph's inputs, by name; 0 means no window.
        wanted: the index of the new token to compute logits for.

    Raises:
        InvalidArgumentError: there are no tokens, or more than the call or the cache can hold.
    """
    count = len(ids)
    if not 1 <= count <= size.tokens or past + count > size.context or past < 0:
        raise InvalidArgumentError(
            f"{count} tokens behind {past}: a call takes 1 to {size.tokens}, the cache {size.context} in all"
        )
    # Padding tokens get the mask row of the last real token, since softmax over a row without any key is undefined.
    rows = np.minimum(np.arange(size.tokens), count - 1)
    positions = past + rows
    places = np.arange(size.context)
    placement = (places[:, np.newaxis] == past + np.arange(size.tokens)) & (np.arange(size.tokens) < count)
    distance = positions[:, np.newaxis] - places
    found: dict[str, Array] = {
        "input_ids": ids[rows][np.newaxis],
        "position_ids": positions[np.newaxis],
        "placement": placement[np.newaxis].astype(np.float32),
    }
    if size.tokens > 1:
        found["wanted"] = (np.arange(size.tokens) == wanted)[np.newaxis, np.newaxis].astype(np.float32)
    for name, window in windows.items():
        is_seen = (distance >= 0) & (distance < (window or size.context))
        found[name] = is_seen[np.newaxis, np.newaxis].astype(np.float32)
    return found
