"""A decoder as functions `prefill_C` and `decode_C` of one program, for several sizes C of the cache.

The units that need fixed sizes compute a small cache faster than a large one. So a sequence begins with the smallest
cache. When that is full, its contents are copied to the next larger cache.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.core.explicit_cache import ExplicitSize, given_for, is_cache, new_name, windows_of
from triune.core.tensors import Signature
from triune.graph.state_names import new_state

PREFILL: Final = "prefill"
"""The kind of functions that take several new tokens in a call."""

DECODE: Final = "decode"
"""The kind of functions that take one new token in a call."""


_SMALLEST: Final = 256
_STEP: Final = 4
"""If no sizes are given, a ladder begins at the smallest cache size, and each cache is this many times as large as the
next smaller one.
"""

_PREFILL_TOKENS: Final = 64
"""The number of tokens of a call of `prefill_C`. With up to 256 tokens, sums over the tokens stay within fp16."""


def function_name(kind: str, context: int) -> str:
    """The name of the function of a kind (`PREFILL` or `DECODE`) for a cache of `context` tokens: "prefill_256"."""
    return f"{kind}_{context}"


def contexts_up_to(most: int) -> tuple[int, ...]:
    """The sizes of caches, in tokens, for contexts of up to `most` tokens: 256, 1024, ... and `most` itself."""
    found: list[int] = []
    size = _SMALLEST
    while size < most:
        found.append(size)
        size *= _STEP
    return (*found, most)


def functions_of(contexts: Sequence[int]) -> dict[str, ExplicitSize]:
    """The functions of a ladder, the smaller caches first, and the sizes of each.

    Raises:
        InvalidArgumentError: there is no context size, one occurs twice, or one is smaller than 2.
    """
    if not contexts or min(contexts) < 2 or len(set(contexts)) < len(contexts):
        raise InvalidArgumentError(
            f"a ladder of the contexts {list(contexts)}: it has one or more sizes of at least 2 tokens, all different"
        )
    sizes: dict[str, ExplicitSize] = {}
    for context in sorted(contexts):
        sizes[function_name(PREFILL, context)] = ExplicitSize(context, min(_PREFILL_TOKENS, context))
        sizes[function_name(DECODE, context)] = ExplicitSize(context, 1)
    return sizes


class LadderFunction(Protocol):
    """A function of the program, with the interface of `core.runtime.Executable`. Caches that are states of the program
    are inputs here, and outputs with the names that `new_state` gives.
    """

    @property
    def signature(self) -> Signature:
        """The inputs and outputs."""
        ...

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute outputs. The arguments are not changed."""
        ...

    def close(self) -> None:
        """Free the function."""
        ...


@dataclass(slots=True)
class Held:
    """The keys and values of a sequence.

    Attributes:
        context: the number of tokens that the caches can hold.
        caches: the caches by name: for each layer the keys [1, context, width], then the values [1, width, context].
            Each call replaces them.
    """

    context: int
    caches: dict[str, Array]


class Ladder:
    """The functions of a program, which are loaded when they are first called. One call at a time.

    Attributes:
        contexts: the sizes of caches in tokens, ascending.
    """

    def __init__(self, contexts: Sequence[int], load: Callable[[str], LadderFunction]) -> None:
        """Args:
        contexts: the sizes of caches.
        load: loads a function by its name.
        """
        self.contexts: Final = tuple(sorted(contexts))
        self._load = load
        self._functions: dict[tuple[str, int], _Function] = {}

    def start(self, num_tokens: int = 1) -> Held:
        """An empty cache: the smallest one that holds `num_tokens` tokens.

        Raises:
            InvalidArgumentError: no cache can hold so many tokens.
        """
        context = self._context(num_tokens)
        return Held(context, self._function(DECODE, context).empty())

    def read(self, held: Held, past: int, ids: NDArray[np.int64], wanted: Sequence[int]) -> list[NDArray[np.float32]]:
        """Compute tokens, in calls with as many tokens as a function takes.

        Args:
            held: the sequence's cache, which is changed, and moved to a larger one if needed.
            past: how many tokens of the cache are valid; later ones are overwritten.
            ids: INT64 [n], the new tokens.
            wanted: the indices of the new tokens whose logits are wanted, ascending.

        Returns:
            the logits of each wanted token, FP32 [vocabulary].

        Raises:
            InvalidArgumentError: the largest cache cannot hold so many tokens.
        """
        found: dict[int, NDArray[np.float32]] = {}
        begin = 0
        while begin < len(ids):
            # A call returns the logits of one token, so it ends with the first token whose logits are wanted.
            end = next((each + 1 for each in wanted if each >= begin), len(ids))
            context = self._context(past + begin + 1)
            if end - begin > 1:
                end = min(end, begin + self._function(PREFILL, context).size.tokens)
            context = self._context(past + end)
            function = self._function(PREFILL if end - begin > 1 else DECODE, context)
            self.grow(held, context)
            found[end - 1] = function.call(held, ids[begin:end], past + begin)
            begin = end
        return [found[each] for each in wanted]

    def grow(self, held: Held, num_tokens: int) -> None:
        """Move a sequence to the smallest cache that holds `num_tokens` tokens, if its own holds fewer.

        Raises:
            InvalidArgumentError: no cache can hold so many tokens.
        """
        if num_tokens <= held.context:
            return
        larger = self.start(num_tokens)
        for name, cache in held.caches.items():
            larger.caches[name][tuple(map(slice, cache.shape))] = cache
        held.context, held.caches = larger.context, larger.caches

    def close(self) -> None:
        """Free the functions."""
        for each in self._functions.values():
            each.close()
        self._functions.clear()

    def _context(self, num_tokens: int) -> int:
        for context in self.contexts:
            if context >= num_tokens:
                return context
        raise InvalidArgumentError(f"{num_tokens} tokens are to be held; the largest cache holds {self.contexts[-1]}")

    def _function(self, kind: str, context: int) -> "_Function":
        if (kind, context) not in self._functions:
            self._functions[kind, context] = _Function(self._load(function_name(kind, context)))
        return self._functions[kind, context]


class _Function:
    """A function of the program, with its sizes.

    Attributes:
        size: the number of tokens that a call takes, and that the cache can hold.
    """

    def __init__(self, function: LadderFunction) -> None:
        self._function = function
        self._specs = specs = {spec.name: spec for spec in function.signature.inputs}
        self.size = ExplicitSize(specs["placement"].shape[1], specs["input_ids"].shape[1])
        self._windows = windows_of(specs)
        self._caches = {name: spec for name, spec in specs.items() if is_cache(name)}
        known = {spec.name for spec in function.signature.outputs}
        self._news = {name: new_name(name) if new_name(name) in known else new_state(name) for name in self._caches}

    def empty(self) -> dict[str, Array]:
        """Empty caches of the function's size, filled with zeros, by name."""
        return {name: np.zeros(spec.shape, spec.datatype.dtype) for name, spec in self._caches.items()}

    def call(self, held: Held, ids: NDArray[np.int64], past: int) -> NDArray[np.float32]:
        """Compute the new tokens `ids` [n], which follow `past` tokens in the cache. Returns the logits [vocabulary] of
        the last token.
        """
        given = given_for(self.size, ids, past, self._windows, len(ids) - 1)
        given = {name: each.astype(self._specs[name].datatype.dtype, copy=False) for name, each in given.items()}
        found = self._function.run({**given, **held.caches}, ["logits", *self._news.values()])
        held.caches = {name: found[new] for name, new in self._news.items()}
        return found["logits"].reshape(-1).astype(np.float32, copy=False)

    def close(self) -> None:
        """Free the function."""
        self._function.close()
